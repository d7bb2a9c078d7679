"""From rows of sessions to figures with intervals, and to tests between the variants."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import polars as pl

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
FIGURES = (*MEANS, "right", "specificity", "monotonicity", "control")
"""All figures of edits. "right" is the share of effects on the AUC that have the sign that was wanted, and "control"
how far the control moves the AUC in either direction."""

Values = pl.DataFrame
"""session_id, user_id and value: one number for each session that has it."""


def of_edits(frames: Mapping[str, pl.DataFrame]) -> Iterator[tuple[dict[str, Any], dict[str, Values]]]:
    """Every figure of edits: what it is of, and the values of each variant. A session's value is its mean over tags
    and strengths."""
    for texts in (AS_IS, SCRUBBED):
        for (name, direction), kinds in GROUPS.items():
            own = {
                variant: frame.filter(
                    pl.col("texts") == texts, pl.col("direction") == direction, pl.col("kind").is_in(kinds)
                )
                for variant, frame in frames.items()
            }
            for figure in FIGURES:
                key = {"section": "edits", "figure": figure, "edit": name, "direction": direction, "texts": texts}
                yield key, {variant: edit_values(rows, figure) for variant, rows in own.items()}
        own = {
            variant: frame.filter(pl.col("texts") == texts, pl.col("kind") == ANOTHER_USER)
            for variant, frame in frames.items()
        }
        key = {"section": "edits", "figure": "another_user", "edit": ANOTHER_USER, "direction": "", "texts": texts}
        yield (
            key,
            {variant: _means(rows.with_columns(pl.col("auc_raw").abs()), "auc_raw") for variant, rows in own.items()},
        )


def edit_values(rows: pl.DataFrame, figure: str) -> Values:
    """A figure of each session, from its rows of some edits."""
    if figure in MEANS:
        return _means(rows, figure)
    if figure == "control":
        return _means(rows.with_columns(pl.col("auc_control").abs()), "auc_control")
    if figure == "right":
        return _means(rows.with_columns(value=right_signs(rows["auc"].to_numpy())), "value")
    if figure == "specificity":
        there = rows.drop_nulls("moved_unrelated")
        both = _means(there, "moved").join(_means(there, "moved_unrelated"), on=["session_id", "user_id"])
        ratios = specificity(both["value"].to_numpy(), both["value_right"].to_numpy())
        return both.select("session_id", "user_id", value=pl.Series(ratios, dtype=pl.Float64)).filter(
            pl.col("value").is_not_nan()
        )
    keys = ["session_id", "user_id", "tag", "kind"]
    effects = rows.sort("strength").group_by(keys, maintain_order=True).agg("auc")
    effects = effects.filter(pl.col("auc").list.len() == len(STRENGTHS))
    array = np.array(effects["auc"].to_list(), dtype=np.float64).reshape(-1, len(STRENGTHS))
    taus = monotonicity(np.concatenate([np.zeros((len(array), 1)), array], axis=1))
    return _means(effects.with_columns(value=pl.Series(taus, dtype=pl.Float64)), "value")


def of_columns(frames: Mapping[str, pl.DataFrame], columns: Sequence[str]) -> Iterator[tuple[str, dict[str, Values]]]:
    """Columns of frames with one row for each session, as figures."""
    for column in columns:
        yield column, {variant: _means(frame, column) for variant, frame in frames.items()}


def strength_curves(frames: Mapping[str, pl.DataFrame]) -> list[dict[str, Any]]:
    """The effect on the AUC by strength: one row for each variant, edit, direction, kind of item texts and strength."""
    found = []
    for variant, frame in frames.items():
        for (kind, direction, texts, strength), rows in frame.filter(pl.col("kind") != ANOTHER_USER).group_by(
            "kind", "direction", "texts", "strength", maintain_order=True
        ):
            key = {"variant": variant, "edit": kind, "direction": direction, "texts": texts, "strength": strength}
            found.append({**key, **summary(_means(rows, "auc"))})
    return found


def summary(values: Values) -> dict[str, Any]:
    """Mean, 95% bootstrap interval and number of users; sessions of one user are drawn together."""
    if values.is_empty():
        return {"mean": None, "low": None, "high": None, "num_users": 0}
    scores, users = values["value"].to_numpy(), values["user_id"].to_list()
    low, high = bootstrap_intervals({"value": scores}, clusters=users)["value"]
    return {"mean": float(scores.mean()), "low": low, "high": high, "num_users": len(set(users))}


def comparisons(by_variant: Mapping[str, Values]) -> list[dict[str, Any]]:
    """All pairs of variants over the sessions that both have, with the p of the paired permutation test, in which the
    sessions of a user are swapped together, and after Holm's correction over the pairs.

    `difference` is the first less the second. Pairs without a session in common are left out.
    """
    found: list[dict[str, Any]] = []
    for first, second in combinations(by_variant, 2):
        both = by_variant[first].join(by_variant[second], on=["session_id", "user_id"]).sort("session_id")
        if both.is_empty():
            continue
        one, other = both["value"].to_numpy(), both["value_right"].to_numpy()
        users = both["user_id"].to_list()
        interval = bootstrap_intervals({"difference": one - other}, clusters=users)["difference"]
        found.append(
            {
                "first": first,
                "second": second,
                "difference": float((one - other).mean()),
                "interval": list(interval),
                "num_users": len(set(users)),
                "p": paired_permutation_test(one, other, clusters=users),
            }
        )
    for row, p in zip(found, holm([row["p"] for row in found]) if found else [], strict=True):
        row["p_holm"] = p
    return found


def _means(rows: pl.DataFrame, column: str) -> Values:
    """The mean of a column for each session that has it, by session."""
    return (
        rows.drop_nulls(column)
        .group_by("session_id", "user_id")
        .agg(value=pl.col(column).mean())
        .sort("session_id")
        .select("session_id", "user_id", "value")
    )
