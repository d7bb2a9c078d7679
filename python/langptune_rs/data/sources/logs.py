"""What every source gives: one table of items, one of interactions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

ITEM_SCHEMA = {
    "item_id": pl.String,
    "title": pl.String,
    "description": pl.String,
    "categories": pl.List(pl.String),
    "price": pl.Float64,
}
INTERACTION_SCHEMA = {
    "user_id": pl.String,
    "item_id": pl.String,
    "rating": pl.Float64,
    "timestamp": pl.Int64,
    "position": pl.Int64,
    "review_text": pl.String,
}


@dataclass(frozen=True)
class Logs:
    """Raw logs with the columns of `ITEM_SCHEMA` and `INTERACTION_SCHEMA`, in the order of the files."""

    name: str
    template: str
    """The text template this source asks for."""
    items: pl.DataFrame
    interactions: pl.DataFrame
    files: list[Path]
    """What was read, for the hashes in dataset.toml."""
