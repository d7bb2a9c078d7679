"""Cutting a user's interactions into sessions of distinct items."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import polars as pl


def last_window(items: Sequence[Hashable], size: int) -> list[list[int]]:
    """Places of the newest `size` distinct items, oldest first; no window if there are fewer.

    Of an item that occurs again only the newest occurrence counts.
    """
    newest: dict[Hashable, int] = {}
    for place in range(len(items) - 1, -1, -1):
        newest.setdefault(items[place], place)
        if len(newest) == size:
            return [sorted(newest.values())]
    return []


def all_windows(items: Sequence[Hashable], size: int) -> list[list[int]]:
    """Places of every window of `size` distinct items, one after the other from the oldest.

    A repeat within a window is passed over and a later item taken; what is left at the end makes no window.
    """
    windows: list[list[int]] = []
    window: dict[Hashable, int] = {}
    for place, item in enumerate(items):
        window.setdefault(item, place)
        if len(window) == size:
            windows.append(list(window.values()))
            window = {}
    return windows


WINDOWS: dict[str, Callable[[Sequence[Hashable], int], list[list[int]]]] = {"last": last_window, "all": all_windows}


def cut_sessions(interactions: pl.DataFrame, rule: str, history_length: int) -> pl.DataFrame:
    """One row per session, numbered in the order of the users, then of time.

    `interactions` are sorted by user and time. Columns: session_id, user_id, history, ratings, reviews (lists of
    `history_length`, oldest first), target, target_timestamp.
    """
    rows: list[int] = []
    starts = interactions.with_row_index("row").group_by("user_id", maintain_order=True)
    for start, items in starts.agg(pl.col("row").first(), pl.col("item_id")).select("row", "item_id").iter_rows():
        for window in WINDOWS[rule](items, history_length + 1):
            rows += [start + place for place in window]
    size = history_length + 1
    taken = interactions[rows].with_row_index("place")
    history = pl.col("item_id", "rating", "review_text").head(history_length)
    return (
        taken.group_by((pl.col("place") // size).cast(pl.Int64).alias("session_id"), maintain_order=True)
        .agg(
            pl.col("user_id").first(),
            history,
            pl.col("item_id").last().alias("target"),
            pl.col("timestamp").last().alias("target_timestamp"),
        )
        .rename({"item_id": "history", "rating": "ratings", "review_text": "reviews"})
    )
