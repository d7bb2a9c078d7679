"""Parquet files by their paths, as the file system knows them.

Polars and pyarrow take "[1]" and "*" in a path for a pattern, "~" for a home, and "year=2020" for a column. Every file
is opened here, so that no folder of a user's is misunderstood.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
from polars.exceptions import PanicException, PolarsError

from langptune_rs.errors import DataError
from langptune_rs.files import refuse_unwritable_name


def scan_parquet(file: Path, **options: Any) -> pl.LazyFrame:
    """The table in a file, whose rows are read when they are needed. `options` are those of polars.

    Raises `DataError` for a name that is no UTF-8, which polars cannot open.
    """
    refuse_unwritable_name(file, DataError)
    return pl.scan_parquet(file.absolute(), glob=False, hive_partitioning=False, **options)


def read_parquet(file: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The table in a file, or some of its columns."""
    table = scan_parquet(file)
    return (table if columns is None else table.select(columns)).collect()


def read_whole_parquet(file: Path) -> pl.DataFrame:
    """As `read_parquet`. Raises `DataError` for a file that is missing, cut short or damaged."""
    with explained(file):
        return read_parquet(file)


@contextmanager
def explained(file: Path) -> Iterator[None]:
    """Raise a `DataError` for what polars raises inside the block, while it reads a file that may be damaged.

    Of some damages it says that it panics, which is no kind of `Exception`.
    """
    try:
        yield
    except (PolarsError, OSError, PanicException) as error:
        reason = next(iter(str(error).splitlines()), "broken")
        raise DataError(f"{file} is not a complete parquet file: {reason}. Write or get it again.") from error


def open_parquet(file: Path) -> pq.ParquetFile:
    """A file whose row groups are read one by one, to be closed."""
    return pq.ParquetFile(file.absolute())


def write_parquet(table: pl.DataFrame, file: Path, **options: Any) -> None:
    """Write a table to a file. `options` are those of polars.

    Raises `OSError` for a disk without room, as any writer of files does; polars has an error of its own for it.
    """
    try:
        with file.open("wb") as sink:
            table.write_parquet(sink, **options)
    except pl.exceptions.ComputeError as error:
        if "No space left on device" not in str(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(file)) from error
