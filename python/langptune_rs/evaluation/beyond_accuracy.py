"""What recommended lists are like besides accurate: how much of the catalog they show, how evenly, and how novel it is.

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
        InputError: for what is no rows of item indexes; names the first row that holds none, an index outside
            0..num_items - 1 or an item twice.
    """
    num_items = check_whole(num_items, "num_items", 1)
    return len(np.unique(_checked(ids, num_items).values)) / num_items


def gini(ids: Rows, num_items: int) -> float:
    """The Gini coefficient of how often each item is recommended, in [0, 1 - 1 / num_items].

        sum of (2 j - n - 1) c_j over j = 1..n, divided by n (c_1 + .. + c_n)

    where c_1 <= .. <= c_n are the numbers of lists that the n = `num_items` items are in, those in none included.
    0 when all items are recommended equally often. Shani and Gunawardana (2011) divide by n - 1 instead of n.

    >>> gini([[0, 1], [2, 3]], num_items=4), gini([[0, 1], [0, 1]], num_items=4)
    (0.0, 0.5)

    Raises:
        InputError: as `coverage`.
    """
    num_items = check_whole(num_items, "num_items", 1)
    _, times = np.unique(_checked(ids, num_items).values, return_counts=True)
    shown, total = len(times), int(times.sum())
    # The items in no list, c_j = 0, come first: with i = j - (n - shown), 2 j - n - 1 is 2 i + n - 2 shown - 1.
    by_place = int(np.sort(times) @ np.arange(1, shown + 1))
    return (2 * by_place + (num_items - 2 * shown - 1) * total) / (num_items * total)


def novelty(ids: Rows, popularity: ArrayLike) -> float:
    """The mean self-information of the recommended items in bits: 0 is what everybody chose.

        mean over the users of the mean of -log2 p(i) over the items i of their lists, p(i) = popularity_i / sum of all

    as in Vargas and Castells (2011), their free discovery model without discounts for rank and relevance. An item
    without interactions counts as one with a single interaction, since its self-information would be infinite.

    >>> novelty([[0, 1], [0, 2]], popularity=[4, 2, 2])  # 1, 2, 1 and 2 bits
    1.5

    Args:
        ids: rows of item indexes, as `ItemIndex.search` or `ItemIndex.candidates` returns them.
        popularity: (n_items,) whole numbers, how many interactions each item has, of the training data.

    Raises:
        InputError: as `coverage`; for a popularity that is no row of counts, names the first negative one, or that
            counts no interaction.
    """
    counts = _checked_popularity(popularity)
    rows = _checked(ids, len(counts))
    information = np.log2(counts.sum(dtype=np.float64)) - np.log2(np.maximum(counts, 1))
    of_users = np.add.reduceat(information[rows.values], rows.offsets[:-1]) / np.diff(rows.offsets)
    return float(of_users.mean())


def _checked(ids: Rows, num_items: int) -> Ragged:
    """Rows of different items of the catalog, at least one row and one item in each."""
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
