"""A folder of the user's own `items.jsonl` and `interactions.jsonl`, plain or .gz.

Items: item_id, title, description, categories, price, average_rating; interactions: user_id, item_id, rating (0 to 5),
timestamp (seconds) or position, review_text. Only the ids are needed; null means missing; other fields are passed over.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from langptune_rs.data.json_lines import Row, read_rows
from langptune_rs.data.sources.raw import INTERACTION_SCHEMA, ITEM_SCHEMA, RawLogs, SourceFiles
from langptune_rs.errors import DataError

TEMPLATE = "generic"


def files(folder: Path | None) -> SourceFiles:
    """The files in `folder`. Raises `DataError` when one is missing or there both plain and .gz."""
    if folder is None:
        raise DataError("The source jsonl needs its folder: give it in the place of the name, or with --path.")
    return SourceFiles(_find(folder, "items.jsonl"), _find(folder, "interactions.jsonl"))


def _find(folder: Path, name: str) -> Path:
    found = [path for path in (folder / name, folder / f"{name}.gz") if path.is_file()]
    if not found:
        raise DataError(f"There is no {name} or {name}.gz in {folder}.")
    if len(found) == 2:
        raise DataError(f"{folder} holds both {name} and {name}.gz. Remove the one that is not meant.")
    return found[0]


def read(files: SourceFiles) -> RawLogs:
    """Both tables. Raises `DataError` with file and line for a line or a field that cannot be read."""
    return RawLogs(
        items=pl.DataFrame([_item(row) for row in read_rows(files.items)], schema=ITEM_SCHEMA, orient="row"),
        interactions=pl.DataFrame(
            [_interaction(row) for row in read_rows(files.interactions)], schema=INTERACTION_SCHEMA, orient="row"
        ),
    )


def _item(row: Row) -> tuple[object, ...]:
    return (
        row.identifier("item_id"),
        row.text("title"),
        row.text("description"),
        row.texts("categories"),
        _price(row),
        row.number("average_rating"),
        row.line,
    )


def _price(row: Row) -> str | None:
    """A number as it stands in the file, or a text such as "$4.99"."""
    price = row.values.get("price")
    return row.text("price") if isinstance(price, str) else None if row.number("price") is None else str(price)


def _interaction(row: Row) -> tuple[object, ...]:
    return (
        row.identifier("user_id"),
        row.identifier("item_id"),
        row.number("rating"),
        row.number("timestamp"),
        row.number("position"),
        row.text("review_text"),
        row.line,
    )
