"""What every source gives: two files that are read in chunks, as often as needed, and the checks that hold for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import polars as pl

from langptune_rs.errors import DataError, nearest

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

OnBadLine = Literal["error", "skip"]


@dataclass
class BadLines:
    """What becomes of a row that cannot be used: an error that names it, or a count and a place in a list."""

    policy: OnBadLine = "error"
    num_rows: int = 0
    """Rows left out."""
    first: list[str] = field(default_factory=list)
    """What was wrong with the first of them."""

    MAX_LISTED = 20

    def add(self, file: Path, line: int, problem: str) -> None:
        """Raise `DataError` for a row, or count it."""
        message = f"{file}, line {line}: {problem}"
        if self.policy == "error":
            stop = "" if message.endswith(".") else "."  # behind an excerpt of the line
            raise DataError(f"{message}{stop} Mend the line, or leave such lines out with --on-bad-line skip.")
        self.num_rows += 1
        if len(self.first) < self.MAX_LISTED:
            self.first.append(message)

    def nothing_left(self, file: Path) -> DataError:
        """The error for a file without a row that can be used."""
        here = [message for message in self.first if message.startswith(f"{file}, ")]
        if here:
            return DataError(f"{file} holds no row that can be used. The first: {here[0]}")
        return DataError(f"{file} is empty. It must hold at least one row.")

    def refuse(self, rows: pl.DataFrame, wrong: pl.Expr, file: Path, problem: str) -> pl.DataFrame:
        """`rows` without those that are `wrong`; `problem` is formatted with the columns of each of these."""
        mask = rows.select(wrong.fill_null(False)).to_series()
        if not mask.any():
            return rows
        for row in rows.filter(mask).iter_rows(named=True):
            self.add(file, row["line"], problem.format(**row))
        return rows.filter(~mask)


_AMAZON_OPTIONS = {"items": "--meta", "interactions": "--reviews"}


@dataclass(frozen=True)
class Files:
    """What a user said of where a source's files are."""

    folder: Path | None = None
    """Where files are looked for by the names that the source gives them."""
    items: Path | None = None
    interactions: Path | None = None
    overview: Path | None = None
    """A table with a description of each item, joined by id, for sources that have none."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of `ITEM_SCHEMA` or `INTERACTION_SCHEMA` -> its name in the user's own files."""

    def find(self, role: Literal["items", "interactions"], source: str, *names: str) -> Path:
        """The file given for `role`, or the one in `folder` that has one of `names`, plain or .gz.

        Raises `DataError` for none, and for several.
        """
        given = getattr(self, role)
        if given is not None:
            if not given.is_file():
                raise DataError(f"There is no file {given}, which was given for the {role} of {source}.")
            return given
        option = _AMAZON_OPTIONS[role] if source.startswith("amazon-") else f"--{role}"
        wanted = " or ".join(f"{name} (or {name}.gz)" for name in names)
        if self.folder is None:
            raise DataError(
                f"The source {source} needs its {role}: give the file with {option}, or the folder that holds "
                f"{wanted} with --path."
            )
        patterns = [pattern for name in names for pattern in (name, f"{name}.gz")]
        found = [path for pattern in patterns for path in sorted(self.folder.glob(pattern)) if path.is_file()]
        if not found:
            raise DataError(f"There is no {wanted} in {self.folder}. Give the file with {option}.")
        if len(found) > 1:
            raise DataError(
                f"{self.folder} holds {' and '.join(path.name for path in found[:3])}. "
                f"Say which is meant with {option}."
            )
        return found[0]


NO_FILES = Files()


def column_map(pairs: Sequence[str]) -> dict[str, str]:
    """`NAME=YOURS` pairs as a mapping. Raises `DataError` for a pair that is none and a name that no schema has."""
    columns = {}
    for pair in pairs:
        name, separator, theirs = pair.partition("=")
        if not separator or not theirs:
            raise DataError(f"The column {pair!r} is not of the form NAME=YOURS, such as item_id=asin.")
        check_column(name)
        columns[name] = theirs
    return columns


def check_column(name: str) -> None:
    """Raises `DataError` for a column that neither schema has."""
    known = [column for column in ITEM_SCHEMA | INTERACTION_SCHEMA if column != "line"]
    if name not in known:
        raise DataError(f"There is no column {name!r} to read. Columns are {', '.join(known)}." + nearest(name, known))


class Reader(Protocol):
    """One file of a source, with the columns of `ITEM_SCHEMA` or `INTERACTION_SCHEMA`."""

    file: Path

    @property
    def size(self) -> int:
        """Units of work that one pass advances by, such as the bytes on disk."""

    def chunks(
        self,
        columns: Sequence[str],
        bad: BadLines,
        *,
        lines: np.ndarray | None = None,
        advance: Callable[[int], None] = lambda units: None,
    ) -> Iterator[pl.DataFrame]:
        """The file from its start to its end, some rows at a time.

        Each frame has `columns`, in the types of the schema, and `line`. With `lines` (ascending line numbers) only
        these rows are read; they have been read before, so that none of them is bad. Texts are cleaned. A row
        whose ids are missing, or with a field of another kind, goes to `bad`. Raises `DataError` for a file that
        cannot be read to its end.
        """


@dataclass(frozen=True)
class RawLogs:
    """The two files of a source."""

    items: Reader
    interactions: Reader
    template: str
    """The source's own wording of prompts."""
    is_crawl: bool = False
    """In a crawl an item may be described twice (the first description counts) or not at all (its interactions are
    left out, and counted); in other data either is a mistake."""

    others: Mapping[str, Path] = field(default_factory=dict)
    """Further files that were read for the items, by what they are."""

    @property
    def files(self) -> dict[str, Path]:
        return {"items": self.items.file, "interactions": self.interactions.file, **self.others}


def read_all(reader: Reader, schema: Mapping[str, pl.DataType], bad: BadLines | None = None) -> pl.DataFrame:
    """Every row of a file at once, with the columns of `schema`."""
    columns = [name for name in schema if name != "line"]
    frames = list(reader.chunks(columns, bad or BadLines()))
    return pl.concat([pl.DataFrame(schema=schema), *(frame.select(schema.keys()).cast(schema) for frame in frames)])


SECONDS_BELOW = 1e11
"""No time in seconds is as large (it is the year 5138); in milliseconds every time since 1973 is larger."""


def in_seconds(timestamp: pl.Expr) -> pl.Expr:
    """Times in seconds, milliseconds, microseconds or nanoseconds since 1970, each brought to seconds by its size."""
    size = timestamp.abs()
    return (
        pl.when(size < SECONDS_BELOW)
        .then(timestamp)
        .when(size < SECONDS_BELOW * 1e3)
        .then(timestamp / 1e3)
        .when(size < SECONDS_BELOW * 1e6)
        .then(timestamp / 1e6)
        .otherwise(timestamp / 1e9)
    )
