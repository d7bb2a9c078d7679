"""Measures of recommended lists beyond accuracy: how much of the catalog they show, how evenly, and how novel it is.

Each function takes `ids`, the item indexes (n_users, k) that `ItemIndex.search` returns, or rows of different length
as `ItemIndex.candidates` returns them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langptune_rs.arrays import INTEGERS, Ragged, Rows, as_ragged, check_whole, flat_row
from langptune_rs.errors import InputError


def coverage(ids: Rows, num_items: int) -> float:
    """Catalog coverage: the share of the `num_items` items that are in the list of at least one user, in (0, 1].

    |union of the lists| / num_items (Herlocker et al., 2004; Ge, Delgado-Battenfeld and Jannach, 2010).

    >>> coverage([[0, 1], [0, 2]], num_items=6)
    0.5

    Raises:
        InputError: for anything but rows of item indexes; names the first row that is empty, or that holds an index
            outside 0..num_items - 1 or an item twice.
    """
    num_items = check_whole(num_items, "num_items", 1)
    return len(np.unique(_checked(ids, num_items).values)) / num_items


def gini(ids: Rows, num_items: int) -> float:
    """The Gini coefficient of how often each item is recommended, in [0, 1 - 1 / num_items].

        sum of (2 j - n - 1) c_j over j = 1..n, divided by n (c_1 + .. + c_n)

    where c_1 <= .. <= c_n count the lists that each of the n = `num_items` items is in, with 0 for those in none.
    0 when all items are recommended equally often. Shani and Gunawardana (2011) divide by n - 1 instead of n.

    >>> gini([[0, 1], [2, 3]], num_items=4), gini([[0, 1], [0, 1]], num_items=4)
    (0.0, 0.5)

    Raises:
        InputError: as `coverage`.
    """
    num_items = check_whole(num_items, "num_items", 1)
    _, counts = np.unique(_checked(ids, num_items).values, return_counts=True)
    num_shown, total = len(counts), int(counts.sum())
    # The items in no list, c_j = 0, come first: with i = j - (n - num_shown), 2 j - n - 1 is 2 i + n - 2 num_shown - 1.
    weighted = int(np.sort(counts) @ np.arange(1, num_shown + 1))
    return (2 * weighted + (num_items - 2 * num_shown - 1) * total) / (num_items * total)


def novelty(ids: Rows, popularity: ArrayLike) -> float:
    """The mean self-information of the recommended items in bits, at least 0, which is an item that everybody chose.

        mean over the users of the mean of -log2 p(i) over the items i of their lists, p(i) = popularity_i / sum of all

    This is the free discovery model of Vargas and Castells (2011) without discounts for rank and relevance. An item
    without interactions counts as having one, since its self-information would be infinite.

    >>> novelty([[0, 1], [0, 2]], popularity=[4, 2, 2])  # 1, 2, 1 and 2 bits
    1.5

    Args:
        ids: rows of item indexes, as `ItemIndex.search` or `ItemIndex.candidates` returns them.
        popularity: (n_items,) whole numbers, how many interactions each item has in the training data.

    Raises:
        InputError: as `coverage`; for a popularity that is not a row of counts, that has a negative one (it names the
            first), or that counts no interaction.
    """
    counts = _checked_popularity(popularity)
    rows = _checked(ids, len(counts))
    information = np.log2(counts.sum(dtype=np.float64)) - np.log2(np.maximum(counts, 1))
    per_user = np.add.reduceat(information[rows.values], rows.offsets[:-1]) / np.diff(rows.offsets)
    return float(per_user.mean())


def _checked(ids: Rows, num_items: int) -> Ragged:
    """`ids` as rows of at least one item each, all of the catalog and different within a row; at least one row."""
    rows = as_ragged(ids, "ids")
    lengths, values = np.diff(rows.offsets), rows.values
    if not len(lengths):
        raise InputError("ids has no rows: pass the lists of at least one user")
    if rows.offsets[0] != 0 or rows.offsets[-1] != len(values) or lengths.min() < 0:
        raise InputError(f"ids offsets must start at 0, never decrease and end at the number of values, {len(values)}")
    if lengths.min() == 0:
        raise InputError(f"ids row {int(np.argmin(lengths))} holds no item: leave out users without a list")
    users = np.repeat(np.arange(len(lengths)), lengths)
    outside = (values < 0) | (values >= num_items)
    if outside.any():
        place = int(np.argmax(outside))
        raise InputError(
            f"ids row {users[place]} holds item {values[place]}: item indexes run from 0 to {num_items - 1}; pass the "
            "number of items of the whole catalog"
        )
    order = np.lexsort((values, users))
    twice = (np.diff(values[order]) == 0) & (np.diff(users[order]) == 0)
    if twice.any():
        place = order[int(np.argmax(twice))]
        raise InputError(f"ids row {users[place]} holds item {values[place]} twice: a list recommends each item once")
    return rows


def _checked_popularity(popularity: ArrayLike) -> NDArray[np.int64]:
    counts = flat_row(popularity, "popularity", INTEGERS)
    if (counts < 0).any():
        item = int(np.argmax(counts < 0))
        raise InputError(f"popularity of item {item} is {counts[item]}: a number of interactions is 0 or more")
    if not counts.any():
        raise InputError("popularity counts no interaction: pass those of the training data")
    return counts
