"""Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from langptune_rs.data.readers.blocks import is_in
from langptune_rs.data.readers.missing import Titles
from langptune_rs.data.readers.reader import Request, with_columns
from langptune_rs.data.readers.values import Fields, Kind, finish
from langptune_rs.data.store.tables import explained, scan_parquet
from langptune_rs.errors import DataError

BATCH_ROWS = 50_000


@dataclass(frozen=True)
class ParquetFile:
    """A parquet file as a `Reader`. A row's line is its number, counted from 1."""

    file: Path
    fields: Fields
    meant: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Column of titles -> whether "None" is a title there, once it was asked."""

    def chunks(self, request: Request) -> Iterator[pl.DataFrame]:
        """See `Reader.chunks`. Raises `DataError` also for a column of a type that cannot be read."""
        fields = {name: self.fields[name] for name in request.columns if name in self.fields}
        types = parquet_types(self.file)
        values = [_values(self.file, name, types, *fields[name]) for name in fields]
        num_bytes, advanced = self.file.stat().st_size, 0
        with explained(self.file):
            scan = scan_parquet(self.file, row_index_name="line", row_index_offset=1)
            num_rows = scan.select(pl.len()).collect().item()
            batches = scan.select(*values, "line").collect_batches(chunk_size=BATCH_ROWS, maintain_order=True)
            for batch in batches:
                reached = num_bytes * batch["line"][-1] // num_rows
                if request.lines is not None:
                    batch = batch.filter(pl.Series(is_in(batch["line"].to_numpy(), request.lines)))
                rows, problems = finish(batch, fields, self._are_meant)
                request.bad.add_all(self.file, problems)
                if rows.height:
                    yield with_columns(rows, request.columns)
                request.advance(reached - advanced)
                advanced = reached

    def _are_meant(self, column: str) -> bool:
        """Whether "None" is a title in a column."""
        if column not in self.meant:
            titles = Titles(has_nulls=True)
            with explained(self.file):
                table = scan_parquet(self.file).select(pl.col(self.fields[column][0]).cast(pl.String)).collect()
            titles.see(table.to_series())
            self.meant[column] = titles.are_meant
        return self.meant[column]


def parquet_types(file: Path) -> dict[str, pl.DataType]:
    """The columns of a parquet file and their types. Raises `DataError` for another file."""
    with explained(file):
        return dict(scan_parquet(file).collect_schema())


def _values(file: Path, column: str, types: Mapping[str, pl.DataType], name: str, kind: Kind) -> pl.Expr:
    """The values of a field as texts, lists of texts or numbers. Raises `DataError` for a field of another type."""
    found = types[name]
    values = pl.col(name)
    is_text = found in (pl.String, pl.Categorical, pl.Enum) or found == pl.Null
    match kind:
        case "number" if found.is_numeric() or found == pl.Null:
            values = values.cast(pl.Float64)
        case "number" if found == pl.Date or (column == "timestamp" and found == pl.Datetime):
            values = values.cast(pl.Datetime("us")).dt.epoch("us") / 1e6
        case "price" if found.is_numeric():
            values = pl.when(values.cast(pl.Float64).is_finite()).then(values.cast(pl.String))
        case "texts" | "words" | "joined_texts" if found in (pl.List(pl.String), pl.List(pl.Null)):
            values = values.cast(pl.List(pl.String))
        case "identifier" if found.is_integer():
            values = values.cast(pl.String)
        case _ if is_text and kind != "number":
            values = values.cast(pl.String)
        case _:
            wanted = {"number": "numbers", "identifier": "texts or whole numbers", "price": "texts or numbers"}
            raise DataError(
                f"{file}: the column {name!r} is of type {found}, but {column} must be {wanted.get(kind, 'texts')}. "
                "Write it again as such."
            )
    return values.alias(column)
