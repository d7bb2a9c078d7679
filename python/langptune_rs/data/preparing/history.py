"""A history from the user's own file."""

from __future__ import annotations

import math
from pathlib import Path

from langptune_rs.config.data import STARS, RatingScale
from langptune_rs.data.preparing.ratings import in_stars
from langptune_rs.data.readers.json_rows import Row, read_rows
from langptune_rs.data.store.catalog import Catalog
from langptune_rs.errors import DataError


def read_history(
    path: str | Path, catalog: Catalog, scale: RatingScale = STARS
) -> tuple[list[int], list[float], list[str | None]]:
    """Item indexes, ratings from 0 to 5 (NaN for none) and reviews (None for none), oldest first.

    The file holds one JSON object a line: {"item_id" or "title", "rating"?, "review_text"?}. `scale` is that of its
    ratings, `Dataset.rating_scale` for those of a data set. Raises `DataError`, with the line and the nearest name, for
    an item that is not in the catalog, and for a rating that is not on the scale.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"There is no history file {file}. Write one JSON object a line, with item_id or title.")
    rows = list(read_rows(file))
    if not rows:
        raise DataError(f"{file} is empty. Write one JSON object a line, with item_id or title.")
    return (
        [_item(row, catalog) for row in rows],
        [_rating(row, scale) for row in rows],
        [row.text("review_text") or None for row in rows],
    )


def _item(row: Row, catalog: Catalog) -> int:
    by_title = "item_id" not in row.values and row.title("title")
    wanted = by_title or row.identifier("item_id")
    try:
        return catalog.index_of_title(wanted) if by_title else catalog.index_of(wanted)
    except DataError as error:
        row.fail(str(error))


def _rating(row: Row, scale: RatingScale) -> float:
    rating = row.number("rating")
    if rating is None:
        return math.nan
    if not scale.low <= rating <= scale.high:
        row.fail(f"the rating {rating:.12g} is not from {scale.words}, the scale of the data set.")
    return in_stars(rating, scale)
