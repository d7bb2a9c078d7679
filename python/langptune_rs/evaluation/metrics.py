"""Ranking metrics by name, such as "ndcg@20" or, over the whole ranking, "ndcg".

For a user with R relevant items at the 1-based ranks r_1 < .. < r_R of a complete ranking, cut at k:

    ndcg       sum of 1 / log2(1 + r_j) over r_j <= k, divided by its value for the best ranking, r_j = j
    mrr        1 / r_1 if r_1 <= k, else 0
    recall     share of the R relevant items with r_j <= k
    precision  number of r_j <= k, divided by k; needs a cut
    hit_rate   1 if r_1 <= k, else 0
    map        sum of j / r_j over r_j <= k, divided by R

These are the formulas of trec_eval, which pytrec_eval calls (`ndcg_cut`, `recip_rank`, `recall`, `P`, `success`,
`map_cut`), and of ranx under the same names; with one relevant item per user they are those of the paper. All of them
agree to 1e-12 where a run lists the whole ranking. They differ where it does not:

- trec_eval does not cut `recip_rank`: mrr@k is its value for a run of k items. It also rounds the scores of a run to
  float32 and breaks ties by the name of the item, so its ranks may differ from those of `ItemIndex.rank`.
- All divide precision@k by k, even for a run of fewer items. Without a cut, ranx divides by the length of the run,
  which ranks do not tell, so precision needs a cut here.
- There, items that a run does not list count as not found. Here every item has a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from langptune_rs import _core
from langptune_rs.arrays import NUMBERS, Rows, as_ragged, flat_row, is_one_per_row
from langptune_rs.errors import InputError

METRICS = ("ndcg", "mrr", "recall", "precision", "hit_rate", "map")


class Metric(NamedTuple):
    """A metric and its cut, None for the whole ranking."""

    name: str
    k: int | None


def parse(metric: str) -> Metric:
    """Reads "ndcg@20" or "ndcg".

    Raises:
        InputError: for an unknown name (it suggests the nearest), a cut below 1, or precision without a cut.
    """
    if not isinstance(metric, str):
        raise InputError(f'metric {metric!r} is a {type(metric).__name__}: pass a string such as "ndcg@20"')
    name, at, cut = metric.partition("@")
    if name not in METRICS:
        raise InputError(
            f'"{metric}" is no metric{_nearest(name)}; there are {", ".join(METRICS)}, cut as in "ndcg@20"'
        )
    if at and not (cut.isascii() and cut.isdigit() and len(cut) <= 18 and int(cut) >= 1):
        raise InputError(
            f'"{metric}" is cut at "{cut}": a cut is a whole number from 1, as in "{name}@20", below 10^18'
        )
    if name == "precision" and not at:
        raise InputError('"precision" divides by the number of places: give it a cut, such as "precision@20"')
    return Metric(name, int(cut) if at else None)


def from_ranks(ranks: Rows, metric: str) -> NDArray[np.float64]:
    """The metric of every user.

    >>> from_ranks([1, 3, 40], "ndcg@20").tolist()
    [1.0, 0.5, 0.0]

    Args:
        ranks: what `ItemIndex.rank` returns: (n_users,), (n_users, r), `Ragged`, a list of rows or (offsets, ranks);
            1-based, in any order within a user.
        metric: such as "ndcg@20".

    Returns:
        float64 (n_users,), each in [0, 1]. ndcg, precision and map may be larger for a user with two ranks less than 1
        apart, such as those of tied items with ties="min".

    Raises:
        InputError: as `parse`; names the first row without a rank, or with one below 1 or not finite.
    """
    scores: NDArray[np.float64] = per_user(ranks, [parse(metric)])[0]
    return scores


def per_user(ranks: Rows, metrics: Sequence[Metric]) -> NDArray[np.float64]:
    """As `from_ranks`, for several metrics at once: float64 (metrics, n_users)."""
    if is_one_per_row(ranks):
        return _core.per_user(metrics, None, flat_row(ranks, "ranks", NUMBERS))
    rows = as_ragged(ranks, "ranks", NUMBERS)
    return _core.per_user(metrics, rows.offsets, rows.values)


def _nearest(name: str) -> str:
    from difflib import get_close_matches  # only for an error: it costs more to import than the rest of this package

    near = get_close_matches(name.lower(), METRICS, n=1)
    return f'; did you mean "{near[0]}"?' if near else ""
