"""The form of a text file of rows: its columns, its separator, its quotes and its encoding."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from langptune_rs.data.readers.blocks import first_line
from langptune_rs.errors import DataError, nearest

INNER_SEPARATOR = "\x1f"
"""Takes the place of a separator of several characters, which polars cannot read."""


@dataclass(frozen=True)
class Form:
    """How the rows of a text file are written."""

    names: tuple[str, ...]
    """The names of the fields of each row."""
    separator: str = ","
    has_header: bool = True
    has_quotes: bool = True
    """Whether a field in "quotes" may hold separators and line ends."""
    is_latin: bool = False
    """Whether what is not UTF-8 is Latin-1."""

    @property
    def inner_separator(self) -> str:
        """The separator after `normalised`, one character."""
        return self.separator if len(self.separator) == 1 else INNER_SEPARATOR

    def normalised(self, block: bytes) -> bytes:
        """`block` in UTF-8, with `inner_separator` between its fields."""
        if self.is_latin and not is_utf8(block):
            block = block.decode("latin-1").encode("utf-8")
        return block if len(self.separator) == 1 else block.replace(self.separator.encode(), INNER_SEPARATOR.encode())


def read_form(file: Path) -> Form:
    """The form of a file with a header line. Its separator is the most frequent of comma, semicolon and tab there.

    Raises `DataError` as `read_header` does, and for a header that gives two columns the same name.
    """
    header = read_header(file)
    separator = max(",;\t", key=header.count)
    try:
        names = tuple(name.strip() for name in next(csv.reader([header], delimiter=separator)))
    except csv.Error as error:
        raise DataError(f"{file}, line 1: {error}. Save the file with lines that end in a line feed.") from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{file}, line 1: two columns have the name {twice!r}. Give each its own.")
    return Form(names, separator)


def read_header(file: Path) -> str:
    """The first line. Raises `DataError` if it is blank or is not UTF-8."""
    line = first_line(file)
    if not line.strip():
        raise DataError(f"{file} is empty. Its first line must name its columns.")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, line 1: not UTF-8 at byte {error.start + 1}. Save it as UTF-8.") from error


def missing_column(file: Path, name: str, there: Iterable[str]) -> DataError:
    """Return the error for a file that has the columns `there`, but not `name`."""
    names = list(there)
    return DataError(f"{file} lacks the column {name!r}. It has {', '.join(names)}.{nearest(name, names)}")


def is_utf8(block: bytes) -> bool:
    """Whether `block` is valid UTF-8."""
    if block.isascii():
        return True
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
