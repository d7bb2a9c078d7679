"""From rows of sessions to figures with intervals, and to tests between the variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from langptune_rs.evaluation.significance import bootstrap_intervals, holm, paired_permutation_test
from langptune_rs.evaluation.steerability import monotonicity, right_signs, specificity
from langptune_rs.experiments.steerability.measuring import ANOTHER_USER
from langptune_rs.experiments.steerability.protocol import AS_IS, SCRUBBED, STRENGTHS

GROUPS: dict[tuple[str, str], tuple[str, ...]] = {
    ("append", "increase"): ("append",),
    ("rewrite", "increase"): ("rewrite",),
    ("append and rewrite", "increase"): ("append", "rewrite"),
    ("request", "increase"): ("request",),
    ("negate", "decrease"): ("negate",),
    ("rewrite", "decrease"): ("rewrite",),
    ("negate and rewrite", "decrease"): ("negate", "rewrite"),
    ("delete", "decrease"): ("delete",),
    ("request", "decrease"): ("request",),
}
"""What figures are of: the name of some edits, their direction, and their kinds."""
HEADLINES = {"increase": "append and rewrite", "decrease": "negate and rewrite"}
"""The edits of a text that all profiles allow, by direction."""

MEANS = ("auc", "auc_raw", "pool", "pool_raw", "exposure", "exposure_raw", "ndcg", "unrelated_edit")
"""Figures that are means of a column of `measuring.COLUMNS`."""
FIGURES = (*MEANS, "right", "control", "specificity", "monotonicity")
"""All figures of edits. "right" is the share of effects on the AUC that have the sign that was wanted, and "control"
how far the control moves the AUC in either direction."""


@dataclass(frozen=True, eq=False)
class Values:
    """One number for each session that has it.

    Attributes:
        sessions: int64 (n,), rising.
        users: (n,), whose they are.
        numbers: float64 (n,).
    """

    sessions: NDArray[np.int64]
    users: NDArray[np.str_]
    numbers: NDArray[np.float64]

    @classmethod
    def means(cls, frame: pl.DataFrame, numbers: NDArray[np.float64]) -> Values:
        """The mean of the numbers of each session, which belong to the rows of a frame; NaN counts as none.

        It is summed in the order of the rows, so that equal frames have equal means to the bit.
        """
        sessions, first, codes = np.unique(frame["session_id"].to_numpy(), return_index=True, return_inverse=True)
        users = np.array(frame["user_id"].to_list(), dtype=np.str_)[first]
        is_number = ~np.isnan(numbers)
        sums = np.bincount(codes[is_number], numbers[is_number], minlength=len(sessions))
        counts = np.bincount(codes[is_number], minlength=len(sessions))
        there = counts > 0
        return cls(sessions[there], users[there], sums[there] / counts[there])

    def __len__(self) -> int:
        return len(self.sessions)


def of_edits(frames: Mapping[str, pl.DataFrame]) -> Iterator[tuple[dict[str, Any], dict[str, Values]]]:
    """Every figure of edits: what it is of, and the values of each variant. A session's value is its mean over tags
    and strengths."""
    for texts in (AS_IS, SCRUBBED):
        there = {variant: frame.filter(pl.col("texts") == texts) for variant, frame in frames.items()}
        for (name, direction), kinds in GROUPS.items():
            is_own = (pl.col("direction") == direction) & pl.col("kind").is_in(kinds)
            found = {variant: edit_figures(frame.filter(is_own)) for variant, frame in there.items()}
            for figure in FIGURES:
                key = {"section": "edits", "figure": figure, "edit": name, "direction": direction, "texts": texts}
                yield key, {variant: values[figure] for variant, values in found.items()}
        key = {"section": "edits", "figure": "another_user", "edit": ANOTHER_USER, "direction": "", "texts": texts}
        yield key, {variant: _another_user(frame) for variant, frame in there.items()}


def edit_figures(rows: pl.DataFrame) -> dict[str, Values]:
    """The figures `FIGURES` of each session, from its rows of some edits, of one direction and one kind of texts."""
    found = {figure: Values.means(rows, _numbers(rows, figure)) for figure in MEANS}
    found["right"] = Values.means(rows, right_signs(_numbers(rows, "auc")))
    found["control"] = Values.means(rows, np.abs(_numbers(rows, "auc_control")))
    compared = rows.filter(pl.col("moved_unrelated").is_not_null())
    target, others = (Values.means(compared, _numbers(compared, name)) for name in ("moved", "moved_unrelated"))
    ratios = specificity(target.numbers, others.numbers)
    there = ~np.isnan(ratios)
    found["specificity"] = Values(target.sessions[there], target.users[there], ratios[there])
    found["monotonicity"] = _monotonicity(rows.filter(pl.col("kind") != "delete"))
    return found


def _monotonicity(rows: pl.DataFrame) -> Values:
    """The mean of each session over its tags and kinds of edits, from no edit to the greatest strength."""
    ordered = rows.sort("session_id", "tag", "kind", "strength")
    effects = _numbers(ordered, "auc").reshape(-1, len(STRENGTHS))
    taus = monotonicity(np.concatenate([np.zeros((len(effects), 1)), effects], axis=1))
    return Values.means(ordered.gather_every(len(STRENGTHS)), taus)


def _another_user(frame: pl.DataFrame) -> Values:
    rows = frame.filter(pl.col("kind") == ANOTHER_USER)
    return Values.means(rows, np.abs(_numbers(rows, "auc_raw")))


def _numbers(frame: pl.DataFrame, column: str) -> NDArray[np.float64]:
    """A column, NaN where it has no value."""
    numbers: NDArray[np.float64] = frame[column].fill_null(float("nan")).to_numpy()
    return numbers


def of_columns(frames: Mapping[str, pl.DataFrame], columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Values]]]:
    """Columns of frames with one row for each session, as figures."""
    for column in columns:
        yield column, {variant: Values.means(frame, _numbers(frame, column)) for variant, frame in frames.items()}


def strength_curves(frames: Mapping[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """The effect on the AUC by strength: one row for each variant, edit, direction, kind of item texts and strength."""
    found = []
    for variant, frame in frames.items():
        edits = frame.filter(pl.col("kind") != ANOTHER_USER)
        for (kind, direction, texts, strength), rows in edits.group_by(
            "kind", "direction", "texts", "strength", maintain_order=True
        ):
            key = {"variant": variant, "edit": kind, "direction": direction, "texts": texts, "strength": strength}
            found.append({**key, **summary(Values.means(rows, _numbers(rows, "auc")))})
    return found


def summary(values: Values) -> dict[str, Any]:
    """Mean, 95% bootstrap interval and number of users; sessions of one user are drawn together."""
    if not len(values):
        return {"mean": None, "low": None, "high": None, "num_users": 0}
    low, high = bootstrap_intervals({"value": values.numbers}, clusters=values.users)["value"]
    return {"mean": float(values.numbers.mean()), "low": low, "high": high, "num_users": len(np.unique(values.users))}


def comparisons(by_variant: Mapping[str, Values]) -> list[dict[str, Any]]:
    """All pairs of variants over the sessions that both have, with the p of the paired permutation test, in which the
    sessions of a user are swapped together, and after Holm's correction over the pairs.

    `difference` is the first less the second. Pairs without a session in common are left out.
    """
    found: list[dict[str, Any]] = []
    for first, second in combinations(by_variant, 2):
        one, other = by_variant[first], by_variant[second]
        _, places, others = np.intersect1d(one.sessions, other.sessions, assume_unique=True, return_indices=True)
        if not len(places):
            continue
        a, b, users = one.numbers[places], other.numbers[others], one.users[places]
        interval = bootstrap_intervals({"difference": a - b}, clusters=users)["difference"]
        found.append(
            {
                "first": first,
                "second": second,
                "difference": float((a - b).mean()),
                "interval": list(interval),
                "num_users": len(np.unique(users)),
                "p": paired_permutation_test(a, b, clusters=users),
            }
        )
    for row, p in zip(found, holm([row["p"] for row in found]) if found else [], strict=True):
        row["p_holm"] = p
    return found
