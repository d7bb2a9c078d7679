"""Several files of the same rows as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from langptune_rs.data.readers.reader import Reader, Request

_LINES_OF_A_FILE = 1 << 30
"""More than any file has, and a quarter of what a line's number can be."""


@dataclass(frozen=True)
class Joined:
    """Two to four other `Reader`s, one after another. The lines of each have numbers of their own."""

    readers: tuple[Reader, ...]

    @property
    def file(self) -> Path:
        """The first of the files."""
        return self.readers[0].file

    def chunks(self, request: Request) -> Iterator[pl.DataFrame]:
        """See `Reader.chunks`. What is wrong is reported with the file that it is in."""
        for number, reader in enumerate(self.readers):
            first = number * _LINES_OF_A_FILE
            lines = request.lines
            if lines is not None:
                lines = lines[(lines >= first) & (lines < first + _LINES_OF_A_FILE)] - first
            for rows in reader.chunks(replace(request, lines=lines)):
                yield rows.with_columns(pl.col("line") + pl.lit(first, pl.UInt32))


def joined(readers: Sequence[Reader]) -> Reader:
    """The readers of one or more files as one."""
    return readers[0] if len(readers) == 1 else Joined(tuple(readers))


def files_of(reader: Reader) -> tuple[Path, ...]:
    """The files that a reader reads."""
    return tuple(part.file for part in reader.readers) if isinstance(reader, Joined) else (reader.file,)


def place_of(reader: Reader, line: int) -> tuple[Path, int]:
    """The file and the line in it of a row that a reader gave the number `line`."""
    if not isinstance(reader, Joined):
        return reader.file, line
    number, line = divmod(line, _LINES_OF_A_FILE)
    return reader.readers[number].file, line
