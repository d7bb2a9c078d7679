"""Measures of steering: how a ranking treats the items with a tag, and how that changes with an edit of a profile.

`items` and `scores` are rows as `ItemIndex.search` returns them, best first. `tags` is bool (T, num_items), a row for
each tag. Items that are in no row, such as those of a history, count nowhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ranks = NDArray[np.float64]
"""(M, num_items): the rank of each item in each of M rankings, from 1, and 0 where it is not ranked."""


def mean_ranks(items: NDArray[np.integer], scores: NDArray[np.floating], num_items: int) -> Ranks:
    """The 1-based rank of every item, and 0 of items that are not ranked; items of one score share their mean rank.

    >>> mean_ranks(np.array([[3, 0, 1]]), np.array([[0.9, 0.5, 0.5]]), num_items=4).tolist()
    [[2.5, 2.5, 0.0, 1.0]]

    Args:
        items: (M, n) item indexes, best first; no item twice in a row.
        scores: (M, n) their scores, falling.
        num_items: items of the catalog.
    """
    num_rows, num_ranked = items.shape
    places = np.broadcast_to(np.arange(1.0, num_ranked + 1), items.shape)
    is_tied = np.zeros(items.shape, dtype=bool)
    np.equal(scores[:, 1:], scores[:, :-1], out=is_tied[:, 1:])
    if is_tied.any():
        groups = np.cumsum(~is_tied, axis=1) - 1 + num_ranked * np.arange(num_rows)[:, None]
        sums = np.bincount(groups.ravel(), places.ravel(), minlength=num_rows * num_ranked)
        sizes = np.bincount(groups.ravel(), minlength=num_rows * num_ranked)
        places = (sums[groups] / sizes[groups]).reshape(items.shape)
    ranks = np.zeros((num_rows, num_items))
    np.put_along_axis(ranks, items, places, axis=1)
    return ranks


def tag_aucs(ranks: Ranks, tags: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The AUC of each tag in each ranking, (M, T): the share of pairs of an item with and one without the tag in which
    the one with it stands higher. A tie is half a pair. NaN where all items that are ranked have the tag, or none has.

    It is (sum of ranks of the others - o (o + 1) / 2) / (t o) with t items that have the tag and o others, the
    statistic of Mann and Whitney (1947). All ranks are halves of whole numbers, so that nothing is rounded before the
    division.

    >>> ranks = mean_ranks(np.array([[3, 0, 1]]), np.array([[0.9, 0.5, 0.5]]), num_items=4)
    >>> tag_aucs(ranks, np.array([[True, False, False, True]])).tolist()
    [[0.75]]

    Args:
        ranks: what `mean_ranks` returns, (M, num_items).
        tags: (T, num_items).
    """
    is_ranked = (ranks > 0).astype(np.float64)
    without = (~tags).T.astype(np.float64)
    num_others = is_ranked @ without
    num_tagged = is_ranked.sum(axis=1, keepdims=True) - num_others
    above = ranks @ without - num_others * (num_others + 1) / 2
    pairs = num_tagged * num_others
    aucs: NDArray[np.float64] = np.divide(above, pairs, out=np.full_like(above, np.nan), where=pairs > 0)
    return aucs


def pool_aucs(ranks: Ranks, tagged: NDArray[np.integer], others: NDArray[np.integer]) -> NDArray[np.float64]:
    """The AUC within a pool of items, (M,): as `tag_aucs` over these items alone.

    SteerEval (arXiv 2601.21105) measures on 50 items with a tag and 50 without.

    >>> ranks = np.array([[1.0, 4.0, 2.0, 3.0]])
    >>> pool_aucs(ranks, np.array([0, 1]), np.array([3])).tolist()
    [0.5]

    Args:
        ranks: what `mean_ranks` returns, (M, num_items).
        tagged, others: item indexes of the pool, all of which are ranked.
    """
    inside, outside = ranks[:, tagged, None], ranks[:, None, others]
    found: NDArray[np.float64] = ((inside < outside) + 0.5 * (inside == outside)).mean(axis=(1, 2))
    return found


def exposures(items: NDArray[np.integer], tags: NDArray[np.bool_], k: int) -> NDArray[np.float64]:
    """The share of the first k items that has each tag, (M, T).

    >>> exposures(np.array([[3, 0, 1]]), np.array([[True, False, False, True]]), k=2).tolist()
    [[1.0]]

    Args:
        items: (M, n) item indexes, best first.
        tags: (T, num_items).
        k: how many items a person sees.
    """
    shares: NDArray[np.float64] = tags[:, items[:, :k]].mean(axis=2).T
    return shares


def right_signs(effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 for an effect above 0, 0 for one below, 0.5 for none, in the shape of `effects`.

    >>> right_signs(np.array([0.2, 0.0, -0.1])).tolist()
    [1.0, 0.5, 0.0]
    """
    signs: NDArray[np.float64] = (np.sign(effects) + 1) / 2
    return signs


def monotonicity(effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """How surely an effect grows with strength, (...,): Kendall's tau-a of effects (..., S) of S rising strengths.

    1 where every strength does more than all below it, -1 where each does less, 0 where strength changes nothing.

    >>> monotonicity(np.array([[0.0, 0.1, 0.2], [0.0, 0.2, 0.1]])).round(3).tolist()
    [1.0, 0.333]
    """
    lower, higher = np.triu_indices(effects.shape[-1], 1)
    taus: NDArray[np.float64] = np.sign(effects[..., higher] - effects[..., lower]).mean(axis=-1)
    return taus


def specificity(target: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """The movement of unrelated tags over that of the edited one, elementwise: 0 moves the tag alone, 1 all alike.

    Where neither moves it is 1, since nothing was singled out, and NaN where only others do.

    >>> specificity(np.array([0.2, 0.0]), np.array([0.05, 0.0])).tolist()
    [0.25, 1.0]

    Args:
        target, others: how far the tags move, not negative.
    """
    return np.divide(others, target, out=np.where(others > 0, np.nan, 1.0), where=target > 0)
