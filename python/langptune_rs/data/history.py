"""A history that a person wrote into a file, for `langptune profile --history`."""

from __future__ import annotations

from pathlib import Path

from langptune_rs.data.catalog import Catalog
from langptune_rs.data.sources.jsonl import number, rows
from langptune_rs.errors import DataError


def read_history(path: Path, catalog: Catalog) -> tuple[list[int], list[float | None], list[str | None]]:
    """Item indexes, ratings and reviews of a JSON-lines file, oldest first.

    Each line has `item_id` or `title`, and may have `rating` (0 to 5) and `review_text`. Raises `DataError` with
    the line for anything else, and for an empty file.
    """
    if not path.is_file():
        raise DataError(f"There is no history file {path}.")
    items: list[int] = []
    ratings: list[float | None] = []
    reviews: list[str | None] = []
    for row, where in rows(path):
        name = row.get("item_id", row.get("title"))
        if not isinstance(name, str | int):
            raise DataError(f"{where}: every line needs an item_id or a title.")
        try:
            items.append(catalog.index_of(str(name)))
        except DataError as error:
            raise DataError(f"{where}: {error}") from error
        rating = number(row, "rating", where)
        if rating is not None and not 0 <= rating <= 5:
            raise DataError(f"{where}: the rating {rating:g} is outside 0 to 5.")
        ratings.append(rating)
        reviews.append(row.get("review_text"))
    if not items:
        raise DataError(f"{path} holds no history: write one JSON object a line, such as {{\"title\": ..., \"rating\": 4}}.")
    return items, ratings, reviews
