"""What is removed from raw logs before sessions are cut, and how much each step left."""

from __future__ import annotations

import polars as pl

from langptune_rs.data.sources.raw import RawLogs
from langptune_rs.errors import DataError


def count(step: str, interactions: pl.DataFrame) -> dict[str, str | int]:
    """What is left after `step`, for `dataset.toml`: users and items with an interaction, and interactions.

    Raises `DataError` when nothing is.
    """
    if interactions.is_empty():
        raise DataError(
            f'Nothing is left after the step "{step}". '
            "Lower min_interactions or history_length, or give a source with more interactions."
        )
    return {
        "step": step,
        "users": interactions["user_id"].n_unique(),
        "items": interactions["item_id"].n_unique(),
        "interactions": interactions.height,
    }


def has_text(items: pl.DataFrame) -> pl.DataFrame:
    """The items with a title, a description or a category: of any other no model can read anything."""
    return items.filter(
        pl.col("title").is_not_null()
        | (pl.col("description").fill_null("") != "")
        | (pl.col("categories").list.len() > 0)
    )


def removed(logs: RawLogs, kept: pl.DataFrame) -> dict[str, int]:
    """Counts for `dataset.toml` of what is gone from `logs` where `kept` interactions are left, and of repeats there.

    An item without text counts under that alone.
    """
    described = has_text(logs.items)
    return {
        "users_with_too_few_interactions": logs.interactions["user_id"].n_unique() - kept["user_id"].n_unique(),
        "items_with_too_few_interactions": described.height - kept["item_id"].n_unique(),
        "items_without_text": logs.items.height - described.height,
        "repeated_interactions_kept": kept.height - kept.select("user_id", "item_id").n_unique(),
    }


def k_core(interactions: pl.DataFrame, k: int) -> pl.DataFrame:
    """The largest part in which every user and every item has at least k interactions; its rows keep their order."""
    while True:
        left = interactions.filter(pl.len().over("user_id") >= k).filter(pl.len().over("item_id") >= k)
        if left.height == interactions.height:
            return left
        interactions = left


def in_order(interactions: pl.DataFrame) -> pl.DataFrame:
    """Sorted by user, then timestamp, then position, then place in the file.

    An interaction without a timestamp comes before the user's others, so that it is never taken for the newest.
    """
    return interactions.sort("user_id", "timestamp", "position", "line", nulls_last=False, maintain_order=True)
