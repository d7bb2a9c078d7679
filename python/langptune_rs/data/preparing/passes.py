"""Reading raw logs twice: first the keys and times of everything, then the texts of what the filters left.

After the first pass users and items are whole numbers. The number of an item is its place in the metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import polars as pl

from langptune_rs.config.data import STARS, RatingScale
from langptune_rs.data.preparing import filters
from langptune_rs.data.preparing.ratings import in_stars, scale_advice
from langptune_rs.data.readers.bad_lines import BadLines
from langptune_rs.data.readers.joined import files_of, place_of
from langptune_rs.data.readers.reader import Reader, Request
from langptune_rs.data.readers.values import in_seconds
from langptune_rs.data.sources.files import RawLogs
from langptune_rs.data.store.schema import ITEM_FIELDS
from langptune_rs.errors import nearest
from langptune_rs.progress import byte_progress

_SHOWN_FROM_BYTES = 64 << 20
"""Smaller files are read without a progress bar."""

INTERACTION_KEYS = ("user_id", "item_id", "rating", "timestamp", "position")


class Codes:
    """Whole numbers for texts, from 0, in the order in which the texts first appear."""

    def __init__(self) -> None:
        self._type = pl.Categorical(pl.Categories.random())
        self._alive = pl.Series([], dtype=self._type)  # polars forgets the texts of a type without a series

    def of(self, texts: pl.Series) -> pl.Series:
        """The number of each text, UInt32."""
        return texts.cast(self._type).to_physical()

    def texts(self, codes: pl.Series) -> pl.Series:
        """The text of each number."""
        return codes.cat.to(self._type).cast(pl.String)


@dataclass(frozen=True)
class Keys:
    """What the first pass read, apart from the log."""

    items: pl.DataFrame
    """item_id, has_text and line of every described item, in the order of the file."""
    users: Codes
    """The numbers of the users' ids."""
    num_repeated_items: int
    """Descriptions of items that were described before."""


def read_keys(logs: RawLogs, bad: BadLines, scale: RatingScale = STARS) -> tuple[Keys, pl.DataFrame]:
    """The first pass: the keys, and a log of all interactions.

    A log has the columns user, item, rating (0 to 5, from the `scale` of the file), timestamp (seconds since 1970),
    position and line. User and item are UInt32: item is a row of `Keys.items`, or null for an item that is not
    described. Raises `DataError` for a file
    without a row that can be used and, unless `bad` skips them, for rows that cannot be used.
    """
    items, num_repeated = _read_items(logs, bad)
    users, item_codes = Codes(), Codes()
    # From here on the code of an item is its place among the items, and any other id has a code beyond them.
    places = item_codes.of(items["item_id"])
    assert (places == pl.int_range(items.height, dtype=pl.UInt32, eager=True)).all()
    parts = []
    for part in _chunks(logs.interactions, INTERACTION_KEYS, bad, "interactions"):
        part = part.with_columns(item=item_codes.of(part["item_id"]))
        part = _checked_interactions(part, logs, items["item_id"], bad, scale)
        parts.append(
            part.select(
                user=users.of(part["user_id"]),
                item=pl.when(pl.col("item") < items.height).then("item"),
                rating=in_stars(pl.col("rating"), scale).cast(pl.Float32),
                timestamp=in_seconds(pl.col("timestamp")),
                position=pl.col("position"),
                line=pl.col("line"),
            )
        )
    interactions = pl.concat(parts) if parts else pl.DataFrame()
    if interactions.is_empty():
        raise bad.nothing_left(logs.interactions.file)
    return Keys(items, users, num_repeated), interactions


def read_items(logs: RawLogs, lines: pl.Series, bad: BadLines, scale: RatingScale = STARS) -> pl.DataFrame:
    """`ITEM_FIELDS` and `line` of the items on these lines, in the order of the file."""
    parts = list(_chunks(logs.items, list(ITEM_FIELDS), bad, "texts of items", lines=np.sort(lines.to_numpy())))
    return pl.concat(parts).with_columns(
        title=pl.when(pl.col("title") != "").then("title"), average_rating=in_stars(pl.col("average_rating"), scale)
    )


def read_reviews(logs: RawLogs, lines: np.ndarray, bad: BadLines) -> pl.DataFrame:
    """`line` and `review_text` of the interactions on these lines."""
    lines = np.unique(lines)
    return pl.concat(
        [
            pl.DataFrame(schema={"review_text": pl.String, "line": pl.UInt32}),
            *_chunks(logs.interactions, ("review_text",), bad, "texts of reviews", lines=lines),
        ]
    )


def _read_items(logs: RawLogs, bad: BadLines) -> tuple[pl.DataFrame, int]:
    """item_id, has_text and line of each item, and the number of items that were described before."""
    parts = []
    # Every field is read, so that rows with a bad field are known before items are counted.
    for part in _chunks(logs.items, list(ITEM_FIELDS), bad, "items"):
        if not logs.is_crawl:
            wrong = pl.col("title") == ""
            problem = "the item {item_id!r} has an empty title. Name it or write null."
            part = bad.refuse(part, wrong, partial(place_of, logs.items), problem)
        parts.append(part.select("item_id", "line").with_columns(filters.has_text(part)))
    items = pl.concat(parts) if parts else pl.DataFrame()
    if items.is_empty():
        raise bad.nothing_left(logs.items.file)
    repeated = ~items["item_id"].is_first_distinct()
    num_repeated = int(repeated.sum())
    if num_repeated and not logs.is_crawl:
        problem = "the item_id {item_id!r} was given before."
        items = bad.refuse(items, ~pl.col("item_id").is_first_distinct(), partial(place_of, logs.items), problem)
    return (items.filter(~repeated) if logs.is_crawl else items), num_repeated


def _checked_interactions(
    part: pl.DataFrame, logs: RawLogs, known: pl.Series, bad: BadLines, scale: RatingScale
) -> pl.DataFrame:
    """`part` without ratings out of range and, unless the source is a crawl, without items that are not `known`."""
    place = partial(place_of, logs.interactions)
    problem = f"the rating {{rating:.12g}} is not from {scale.words}."
    is_outside = ~pl.col("rating").is_between(scale.low, scale.high)
    part = bad.refuse(part, is_outside, place, problem, lambda row: scale_advice(row["rating"]))
    if logs.is_crawl:
        return part
    is_unknown = pl.col("item") >= len(known)
    for line, item in part.filter(is_unknown).select("line", "item_id").iter_rows():
        near = nearest(item, known.to_list()) if bad.policy == "error" else ""
        bad.add(*place(line), f"the item {item!r} is not in {logs.items.file.name}.{near}")
    return part.filter(~is_unknown)


def _chunks(
    reader: Reader, columns: Sequence[str], bad: BadLines, what: str, *, lines: np.ndarray | None = None
) -> Iterator[pl.DataFrame]:
    """The chunks of a file, with a progress bar for a large file."""
    num_bytes = sum(file.stat().st_size for file in files_of(reader))
    shown = num_bytes if num_bytes >= _SHOWN_FROM_BYTES else None
    with byte_progress(shown, f"Reading {what} of {reader.file.name}") as advance:
        yield from reader.chunks(Request(columns, bad, lines, advance))
