"""What is removed from raw logs before sessions are cut, and how much each step left."""

from __future__ import annotations

import numpy as np
import polars as pl

from langptune_rs.errors import DataError


class Steps:
    """What was left of the interactions after each step, for `dataset.toml`."""

    def __init__(self) -> None:
        self.counts: list[dict[str, str | int]] = []
        """step, and the number of users, of items with an interaction, and of interactions"""

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
            users, items = interactions["user"].n_unique(), interactions["item"].drop_nulls().n_unique()
            self.counts.append({"step": step, "users": users, "items": items, "interactions": interactions.height})
        return interactions


def has_text(items: pl.DataFrame) -> pl.Series:
    """Whether each item has a title, a description or a category: of any other no model can read anything."""
    title, description = (pl.col(name).fill_null("") != "" for name in ("title", "description"))
    return items.select(has_text=title | description | (pl.col("categories").list.len().fill_null(0) > 0)).to_series()


def k_core(users: np.ndarray, items: np.ndarray, k: int) -> np.ndarray:
    """Which interactions (users[i], items[i]) are in the k-core, bool (n,).

    That is the largest part in which every user and every item has at least k interactions. Users and items are
    whole numbers from 0.
    """
    left = np.arange(len(users))
    while True:
        few_of_user, few_of_item = (np.bincount(codes[left]) < k for codes in (users, items))
        kept = left[~(few_of_user[users[left]] | few_of_item[items[left]])]
        if len(kept) == len(left):
            break
        left = kept
    mask = np.zeros(len(users), dtype=bool)
    mask[left] = True
    return mask


def without_duplicates(interactions: pl.DataFrame) -> pl.DataFrame:
    """The first of the interactions that have the same user, item, and time or position.

    Without a time and a position none is the same as another: it may be done again.
    """
    keys = ["user", "item", "timestamp", "position"]
    has_order = pl.col("timestamp").is_not_null() | pl.col("position").is_not_null()
    return interactions.filter(~has_order | pl.struct(keys).is_first_distinct())


def in_order(interactions: pl.DataFrame) -> pl.DataFrame:
    """Sorted by user, then timestamp, then position, then place in the file.

    An interaction without a timestamp comes before the user's others, so that it is never taken for the newest.
    """
    return interactions.sort("user", "timestamp", "position", "line", nulls_last=False, maintain_order=True)
