"""What is removed from raw logs before sessions are cut, and how much each step left."""

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
        """Count and return `interactions`; an optional step is told of only where it removed something.

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
    """How many of the whole numbers from 0 are there, without nulls."""
    there = codes.drop_nulls().to_numpy()
    seen = np.zeros(int(there.max(initial=0)) + 1, dtype=bool)
    seen[there] = True
    return int(seen.sum())


def num_repeats(log: pl.DataFrame) -> int:
    """How many interactions are with an item that the user had an earlier one with."""
    return len(_repeated(_pairs(log)))


def _pairs(log: pl.DataFrame) -> np.ndarray:
    """The user and the item of each interaction in one number, uint64 (n,)."""
    pairs: np.ndarray = log["user"].to_numpy().astype(np.uint64) << 32 | log["item"].to_numpy()
    return pairs


def _repeated(pairs: np.ndarray) -> np.ndarray:
    """The pairs that are there more than once, ascending, each as often as it repeats."""
    in_order = np.sort(pairs)
    repeated: np.ndarray = in_order[1:][in_order[1:] == in_order[:-1]]
    return repeated


def has_text(items: pl.DataFrame) -> pl.Series:
    """Whether each item has a title, a description or a category: of any other no model can read anything."""
    title, description = (pl.col(name).fill_null("") != "" for name in ("title", "description"))
    return items.select(has_text=title | description | (pl.col("categories").list.len().fill_null(0) > 0)).to_series()


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Which interactions (users[i], items[i]) are in the k-core, bool (n,).

    That is the largest part in which every user and every item has at least k interactions. Users and items are
    whole numbers from 0.
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
    """The first of the interactions that have the same user, item, and time or position.

    Without a time and a position none is the same as another: it may be done again.
    """
    pairs = _pairs(interactions)
    repeats = pl.Series(is_in(pairs, _repeated(pairs)))  # few, so that only these are compared as a whole
    keys = ["user", "item", "timestamp", "position"]
    has_order = pl.col("timestamp").is_not_null() | pl.col("position").is_not_null()
    kept = interactions.filter(repeats).select(~has_order | pl.struct(keys).is_first_distinct()).to_series()
    mask = np.ones(interactions.height, dtype=bool)
    mask[repeats.to_numpy()] = kept.to_numpy()
    return interactions.filter(pl.Series(mask))


def in_order(interactions: pl.DataFrame) -> pl.DataFrame:
    """Sorted by user, then timestamp, then position, then place in the file.

    An interaction without a timestamp comes before the user's others, so that it is never taken for the newest.
    """
    return interactions.sort("user", "timestamp", "position", "line", nulls_last=False, maintain_order=True)
