"""What recommended lists are like besides accurate: how much of the catalog they show, how evenly, and how novel it is.

Each function takes `ids`, the item indexes (n_users, k) that `ItemIndex.search` returns.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langptune_rs.errors import InputError
from langptune_rs.evaluation.arrays import check_whole


def coverage(ids: ArrayLike, num_items: int) -> float:
    """Catalog coverage: the share of the `num_items` items that are in the list of at least one user, in (0, 1].

    |union of the lists| / num_items (Herlocker et al., 2004; Ge, Delgado-Battenfeld and Jannach, 2010).

    >>> coverage([[0, 1], [0, 2]], num_items=6)
    0.5

    Raises:
        InputError: for what is not item indexes (n_users, k); names the first row that holds an index outside
            0..num_items - 1 or an item twice.
    """
    return float(np.count_nonzero(_times_recommended(ids, num_items)) / num_items)


def gini(ids: ArrayLike, num_items: int) -> float:
    """The Gini coefficient of how often each item is recommended, in [0, 1 - 1 / num_items].

        sum of (2 j - n - 1) c_j over j = 1..n, divided by n (c_1 + .. + c_n)

    where c_1 <= .. <= c_n are the numbers of lists that the n = `num_items` items are in, those in none included.
    0 when all items are recommended equally often. Shani and Gunawardana (2011) divide by n - 1 instead of n.

    >>> gini([[0, 1], [2, 3]], num_items=4), gini([[0, 1], [0, 1]], num_items=4)
    (0.0, 0.5)

    Raises:
        InputError: as `coverage`.
    """
    times = np.sort(_times_recommended(ids, num_items))
    weights = 2 * np.arange(1, num_items + 1) - num_items - 1
    return float(int(weights @ times) / (num_items * int(times.sum())))


def novelty(ids: ArrayLike, popularity: ArrayLike) -> float:
    """The mean self-information of the recommended items in bits: 0 is what everybody chose.

        mean of -log2 p(i) over the users and the items i of their lists, p(i) = popularity_i / sum of popularity

    as in Vargas and Castells (2011), their free discovery model without discounts for rank and relevance. An item
    without interactions counts as one with a single interaction, since its self-information would be infinite.

    >>> novelty([[0, 1], [0, 2]], popularity=[4, 2, 2])  # 1, 2, 1 and 2 bits
    1.5

    Args:
        popularity: (n_items,) whole numbers, how many interactions each item has, of the training data.

    Raises:
        InputError: as `coverage`; for a popularity that is no row of counts, names the first negative one, or that
            counts no interaction.
    """
    counts = _checked_popularity(popularity)
    checked = _checked_ids(ids, len(counts))
    information = np.log2(counts.sum()) - np.log2(np.maximum(counts, 1))
    return float(information[checked].mean())


def _times_recommended(ids: ArrayLike, num_items: int) -> NDArray[np.int64]:
    """In how many lists each item is, (num_items,)."""
    return np.bincount(_checked_ids(ids, check_whole(num_items, "num_items", 1)).ravel(), minlength=num_items)


def _checked_ids(ids: ArrayLike, num_items: int) -> NDArray[np.integer]:
    array = np.asarray(ids)
    if array.ndim != 2 or array.dtype.kind not in "iu" or array.size == 0:
        raise InputError(
            f"ids has shape {array.shape} and type {array.dtype}: pass item indexes (n_users, k) as ItemIndex.search "
            "returns them, with at least one user and one item"
        )
    outside = (array < 0) | (array >= num_items)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise InputError(
            f"ids row {row} holds item {array[row, column]}: item indexes run from 0 to {num_items - 1}; pass the "
            "number of items of the whole catalog"
        )
    ordered = np.sort(array, axis=1)
    twice = ordered[:, 1:] == ordered[:, :-1]
    if twice.any():
        row, column = np.argwhere(twice)[0]
        raise InputError(f"ids row {row} holds item {ordered[row, column]} twice: a list recommends each item once")
    return array


def _checked_popularity(popularity: ArrayLike) -> NDArray[np.integer]:
    counts = np.asarray(popularity)
    if counts.ndim != 1 or counts.dtype.kind not in "iu":
        raise InputError(
            f"popularity has shape {counts.shape} and type {counts.dtype}: pass the number of interactions of each "
            "item, (n_items,) whole numbers"
        )
    if (counts < 0).any():
        item = int(np.argmax(counts < 0))
        raise InputError(f"popularity of item {item} is {counts[item]}: a number of interactions is 0 or more")
    if not counts.any():
        raise InputError("popularity counts no interaction: pass those of the training data")
    return counts
