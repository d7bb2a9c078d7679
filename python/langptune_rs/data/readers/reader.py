"""A file of raw logs as a table: the columns of a schema, some rows at a time, as often as needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import polars as pl

from langptune_rs.data.readers.bad_lines import BadLines
from langptune_rs.data.store.schema import ITEM_FIELDS

ITEM_SCHEMA = pl.Schema({**ITEM_FIELDS, "line": pl.UInt32()})
"""`line` is the row's line in its file, counted from 1."""

INTERACTION_SCHEMA = pl.Schema(
    {
        "user_id": pl.String(),
        "item_id": pl.String(),
        "rating": pl.Float64(),
        "timestamp": pl.Float64(),
        "position": pl.Float64(),
        "review_text": pl.String(),
        "line": pl.UInt32(),
    }
)
"""Every field but the ids may be null. `position` stands for a time where only the order is known."""

_SCHEMA = pl.Schema({**ITEM_SCHEMA, **INTERACTION_SCHEMA})


def _ignore(units: int) -> None:
    pass


@dataclass(frozen=True)
class Request:
    """What one pass over a file is to return."""

    columns: Sequence[str]
    bad: BadLines
    """Receives the rows whose ids are missing, and those with a field of another kind."""
    lines: np.ndarray | None = None
    """Ascending line numbers, the only rows to return. They were returned before, so that none of them is bad."""
    advance: Callable[[int], None] = _ignore
    """Called with the number of the file's bytes that were read since the last call."""


class Reader(Protocol):
    """One file of a source, with the columns of `ITEM_SCHEMA` or `INTERACTION_SCHEMA`."""

    @property
    def file(self) -> Path:
        """The file."""

    def chunks(self, request: Request) -> Iterator[pl.DataFrame]:
        """The file from its start to its end, some rows at a time.

        Each frame has the columns asked for, in the types of the schema, and `line`. Texts are cleaned. Raises
        `DataError` for a file that cannot be read to its end, and as `BadLines.add` does.
        """


def read_all(reader: Reader, schema: pl.Schema, bad: BadLines | None = None) -> pl.DataFrame:
    """Every row of a file at once, with the columns of `schema`. Raises `DataError` as `Reader.chunks` does."""
    columns = [name for name in schema if name != "line"]
    frames = reader.chunks(Request(columns, bad or BadLines()))
    return pl.concat([pl.DataFrame(schema=schema), *(frame.select(schema.keys()).cast(schema) for frame in frames)])


def with_columns(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """`columns` and `line` of `rows`. A column that the file does not have is null, or an empty list."""
    types = {name: _SCHEMA.get(name, pl.String()) for name in columns if name not in rows.columns}
    missing = (pl.lit([] if isinstance(dtype, pl.List) else None, dtype).alias(name) for name, dtype in types.items())
    return rows.with_columns(missing).select(*columns, "line")
