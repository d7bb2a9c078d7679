"""A history from the user's own file."""

from __future__ import annotations

import math
from pathlib import Path

from langptune_rs.data.readers.json_rows import Row, read_rows
from langptune_rs.data.readers.reader import MAX_RATING
from langptune_rs.data.store.catalog import Catalog
from langptune_rs.errors import DataError


def read_history(path: str | Path, catalog: Catalog) -> tuple[list[int], list[float], list[str | None]]:
    """Item indexes, ratings (NaN for none) and reviews (None for none), oldest first.

    The file holds one JSON object a line: {"item_id" or "title", "rating"?, "review_text"?}. Raises `DataError`, with
    the line and the nearest name, for an item that is not in the catalog, and for a rating that is not from 0 to 5.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"There is no history file {file}. Write one JSON object a line, with item_id or title.")
    rows = list(read_rows(file))
    if not rows:
        raise DataError(f"{file} is empty. Write one JSON object a line, with item_id or title.")
    return (
        [_item(row, catalog) for row in rows],
        [_rating(row) for row in rows],
        [row.text("review_text") or None for row in rows],
    )


def _item(row: Row, catalog: Catalog) -> int:
    by_title = "item_id" not in row.values and row.text("title")
    wanted = by_title or row.identifier("item_id")
    try:
        return catalog.index_of_title(wanted) if by_title else catalog.index_of(wanted)
    except DataError as error:
        row.fail(str(error))


def _rating(row: Row) -> float:
    rating = row.number("rating")
    if rating is not None and not 0 <= rating <= MAX_RATING:
        row.fail(f"the rating {rating:g} is not from 0 to {MAX_RATING:g}.")
    return math.nan if rating is None else rating
