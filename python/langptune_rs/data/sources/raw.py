"""What every source returns, and the checks that hold for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from langptune_rs.data.catalog import nearest
from langptune_rs.errors import DataError

MAX_RATING = 5.0

ITEM_SCHEMA = {
    "item_id": pl.String,
    "title": pl.String,
    "description": pl.String,
    "categories": pl.List(pl.String),
    "price": pl.String,
    "average_rating": pl.Float64,
    "line": pl.UInt32,
}
"""`line` is the row's line in its file."""

INTERACTION_SCHEMA = {
    "user_id": pl.String,
    "item_id": pl.String,
    "rating": pl.Float64,
    "timestamp": pl.Float64,
    "position": pl.Float64,
    "review_text": pl.String,
    "line": pl.UInt32,
}
"""`timestamp` in seconds, `position` where only the order is known; every field but the ids may be null."""


@dataclass(frozen=True)
class SourceFiles:
    """The two files of a source."""

    items: Path
    interactions: Path


@dataclass(frozen=True)
class RawLogs:
    """Tables of `ITEM_SCHEMA` and `INTERACTION_SCHEMA`, in the order of their files."""

    items: pl.DataFrame
    interactions: pl.DataFrame


def check(logs: RawLogs, files: SourceFiles) -> None:
    """Raise `DataError`, with file and line, for what no source may hold.

    That is: an item id given twice, a title that is there but empty, a rating that is missing its range of 0 to 5,
    an interaction with an item that the source does not describe.
    """
    items, interactions = logs.items, logs.interactions
    for table, file in ((items, files.items), (interactions, files.interactions)):
        if table.is_empty():
            raise DataError(f"{file} is empty. It must hold at least one row.")
        _refuse(table, pl.col("item_id") == "", file, "the item_id is empty.")
    _refuse(items, ~pl.col("item_id").is_first_distinct(), files.items, "the item_id {item_id!r} was given before.")
    _refuse(
        items, pl.col("title") == "", files.items, "the item {item_id!r} has an empty title. Name it or write null."
    )
    _refuse(
        interactions,
        ~pl.col("rating").is_between(0, MAX_RATING),
        files.interactions,
        f"the rating {{rating:g}} is not from 0 to {MAX_RATING:g}.",
    )
    known = items["item_id"]
    unknown = interactions.filter(~pl.col("item_id").is_in(known.implode())).head(1)
    for row in unknown.iter_rows(named=True):
        raise DataError(
            f"{files.interactions}, line {row['line']}: the item {row['item_id']!r} is not in {files.items.name}."
            + nearest(row["item_id"], known.to_list())
        )


def _refuse(table: pl.DataFrame, wrong: pl.Expr, file: Path, problem: str) -> None:
    for row in table.filter(wrong).head(1).iter_rows(named=True):
        raise DataError(f"{file}, line {row['line']}: {problem.format(**row)}")
