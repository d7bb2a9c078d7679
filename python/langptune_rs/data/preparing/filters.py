"""What is removed from raw logs before sessions are cut, and counts of what each step left."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from langptune_rs.data.readers.blocks import is_in
from langptune_rs.errors import DataError


class Steps:
    """What was left of the interactions after each step, for `dataset.toml`."""

    def __init__(self) -> None:
        self.counts: list[dict[str, Any]] = []
        """For each step its name, and the number of users, of items with an interaction, and of interactions."""

    def count(self, step: str, interactions: pl.DataFrame, *, optional: bool = False) -> pl.DataFrame:
        """Count and return `interactions`. An optional step is counted only if it removed something.

        Raises `DataError` when nothing is left.
        """
        if interactions.is_empty():
            raise DataError(
                f'Nothing is left after the step "{step}". Lower min_interactions or history_length, raise '
                "max_item_tokens or max_history_tokens, or give a source with more interactions."
            )
        if not optional or interactions.height < self.counts[-1]["interactions"]:
            users, items = num_distinct(interactions["user"]), num_distinct(interactions["item"])
            self.counts.append({"step": step, "users": users, "items": items, "interactions": interactions.height})
        return interactions


def num_distinct(codes: pl.Series) -> int:
    """The number of different codes, which are whole numbers from 0. Nulls are not counted."""
    there = codes.drop_nulls().to_numpy()
    seen = np.zeros(int(there.max(initial=0)) + 1, dtype=bool)
    seen[there] = True
    return int(seen.sum())


def num_repeats(log: pl.DataFrame) -> int:
    """The number of interactions with an item that the user had an earlier interaction with."""
    return len(_repeated(_pairs(log)))


def _pairs(log: pl.DataFrame) -> np.ndarray:
    """The user and the item of each interaction as one number, uint64 (n,)."""
    pairs: np.ndarray = log["user"].to_numpy().astype(np.uint64) << 32 | log["item"].to_numpy()
    return pairs


def _repeated(pairs: np.ndarray) -> np.ndarray:
    """The pairs that occur more than once, ascending, each as often as it repeats."""
    in_order = np.sort(pairs)
    repeated: np.ndarray = in_order[1:][in_order[1:] == in_order[:-1]]
    return repeated


def has_text(items: pl.DataFrame) -> pl.Series:
    """Whether each item has a title, a description or a category. A model can read nothing of other items."""
    title, description = (pl.col(name).fill_null("") != "" for name in ("title", "description"))
    return items.select(has_text=title | description | (pl.col("categories").list.len().fill_null(0) > 0)).to_series()


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Whether each interaction (users[i], items[i]) is in the k-core, bool (n,).

    The k-core is the largest set of interactions in which every user and every item has at least k. Users and items
    are whole numbers from 0.
    """
    mask = np.ones(len(users), dtype=bool)
    left, counts = [users, items], [np.bincount(users), np.bincount(items)]
    while True:
        few_of_user, few_of_item = (count < k for count in counts)
        dropped = few_of_user[left[0]] | few_of_item[left[1]]
        if not dropped.any():
            return mask
        for codes, count in zip(left, counts, strict=True):
            count -= np.bincount(codes[dropped], minlength=len(count))
        left = [codes[~dropped] for codes in left]
        mask[mask] = ~dropped


def without_duplicates(interactions: pl.DataFrame) -> pl.DataFrame:
    """The first of the interactions that have the same user, item, and time or position, and all others.

    An interaction without time and position is never a duplicate, since a user may interact with an item again.
    """
    pairs = _pairs(interactions)
    repeats = pl.Series(is_in(pairs, _repeated(pairs)))  # they are few, so that only these are compared as a whole
    keys = ["user", "item", "timestamp", "position"]
    has_order = pl.col("timestamp").is_not_null() | pl.col("position").is_not_null()
    kept = interactions.filter(repeats).select(~has_order | pl.struct(keys).is_first_distinct()).to_series()
    mask = np.ones(interactions.height, dtype=bool)
    mask[repeats.to_numpy()] = kept.to_numpy()
    return interactions.filter(pl.Series(mask))


def in_order(interactions: pl.DataFrame) -> pl.DataFrame:
    """`interactions` sorted by user, then timestamp, then position, then line.

    An interaction without a timestamp comes before the others of its user, so that it is never taken for the newest.
    """
    return interactions.sort("user", "timestamp", "position", "line", nulls_last=False, maintain_order=True)
