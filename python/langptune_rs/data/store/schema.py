"""The columns of a data set's tables and their types."""

from __future__ import annotations

import polars as pl

ITEM_FIELDS = pl.Schema(
    {
        "item_id": pl.String(),
        "title": pl.String(),
        "description": pl.String(),
        "categories": pl.List(pl.String()),
        "price": pl.String(),
        "average_rating": pl.Float64(),
    }
)
"""What is known of an item. Every field but the id may be missing."""

ITEM_COLUMNS = pl.Schema(
    {
        **ITEM_FIELDS,
        "text": pl.String(),
        "line": pl.String(),
        "num_tokens": pl.UInt32(),
    }
)
"""`items.parquet`. The template wrote `text` and `line`. `num_tokens` counts the embedder's tokens of `text`."""

SESSION_COLUMNS = pl.Schema(
    {
        "session_id": pl.Int64(),
        "user_id": pl.String(),
        "history": pl.List(pl.String()),
        "ratings": pl.List(pl.Float32()),
        "reviews": pl.List(pl.String()),
        "target": pl.String(),
        "target_timestamp": pl.Float64(),
        "split": pl.String(),
        "num_tokens": pl.UInt32(),
    }
)
"""`sessions.parquet`. `history` and `target` are item ids, and `target_timestamp` is in seconds since 1970.
`num_tokens` counts the policy's tokens of the history."""
