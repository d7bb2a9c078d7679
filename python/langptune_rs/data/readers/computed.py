"""Columns that are computed from those of a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from langptune_rs.data.readers.reader import Reader, Request


@dataclass(frozen=True)
class Computed:
    """Another `Reader` with columns that are computed from several of its own."""

    reader: Reader
    made: Mapping[str, tuple[tuple[str, ...], Callable[..., pl.Expr]]]
    """Column -> the columns it is computed from, and the function that does it."""

    @property
    def file(self) -> Path:
        return self.reader.file

    def chunks(self, request: Request) -> Iterator[pl.DataFrame]:
        """See `Reader.chunks`."""
        made = {name: self.made[name] for name in request.columns if name in self.made}
        parts = (made[name][0] if name in made else (name,) for name in request.columns)
        needed = list(dict.fromkeys(part for names in parts for part in names))
        exprs = [make(*map(pl.col, names)).alias(name) for name, (names, make) in made.items()]
        for rows in self.reader.chunks(replace(request, columns=needed)):
            yield rows.with_columns(exprs).select(*request.columns, "line")
