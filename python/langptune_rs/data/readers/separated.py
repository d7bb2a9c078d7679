"""Text files with a separator between the fields of a row, plain or .gz.

Ids stay as they are written ("007" is not 7). A field with nothing but blanks is null.

Polars reads blocks of the file. A block that polars would misunderstand (quotes out of place, bytes that are not UTF-8)
is split field by field in Python, which finds the rows that are wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from langptune_rs.data.readers.bad_lines import Problems
from langptune_rs.data.readers.blocks import is_in, read_blocks
from langptune_rs.data.readers.form import INNER_SEPARATOR, Form, is_utf8, missing_column, read_form
from langptune_rs.data.readers.missing import (
    IN_QUOTES,
    Titles,
    are_names_for_nothing,
    has_bare_titles,
    without_idle_marks,
)
from langptune_rs.data.readers.reader import Request, with_columns
from langptune_rs.data.readers.values import MAX_EXCERPT_LENGTH, Fields, finish
from langptune_rs.data.wording.excerpts import shorten

MAX_ROW_BYTES = 64 << 20
"""A quoted field that is not closed within so many bytes is taken for one that is never closed."""


@dataclass(frozen=True)
class SeparatedFile:
    """A text file of rows and fields as a `Reader`. A row's line is the one on which the row starts."""

    file: Path
    form: Form
    fields: Fields

    meant: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Column of titles -> whether "None" is a title there, once it was asked."""
    told_by_quotes: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Column of titles -> whether "None" in quotes is a title there, once it was asked."""

    def chunks(self, request: Request) -> Iterator[pl.DataFrame]:
        """See `Reader.chunks`."""
        fields = {name: self.fields[name] for name in request.columns if name in self.fields}
        for raw, problems, num_bytes in self._read(fields, request.lines):
            raw = without_idle_marks(raw, self._titles(fields), self._do_quotes_tell)
            rows, others = finish(raw, fields, self._are_meant)
            request.bad.add_all(self.file, problems | others)
            if rows.height:
                yield with_columns(rows, request.columns)
            request.advance(num_bytes)

    def _read(
        self, fields: Fields, lines: np.ndarray | None, *, marks_all: bool = False
    ) -> Iterator[tuple[pl.DataFrame, Problems, int]]:
        """For each block the rows as they stand, what is wrong with the others, and its bytes in the file.

        `IN_QUOTES` stands before names for nothing that are titles in quotes. With `marks_all` before all titles in
        quotes.
        """
        parser = _Parser(self.form, fields, lines, marks_all=marks_all)
        first, rest = 1, b""
        for block, num_bytes, is_last in _with_last(read_blocks(self.file)):
            text = rest + self.form.normalised(block)
            if self.form.has_header and first == 1 and not rest:
                text = b"\n" + text.partition(b"\n")[2]
            if is_last and not text.endswith(b"\n"):
                text += b"\n"
            rows, problems, used = parser.rows(text, first, is_last)
            rest = text[used:]
            first += _count(text, "\n", used)
            yield rows, problems, num_bytes

    def _are_meant(self, column: str) -> bool:
        """Whether "None" without quotes is a title in a column. The file is read up to the first missing title."""
        if column not in self.meant:
            titles = Titles(has_nulls=False)
            for rows, _, _ in self._read({column: self.fields[column]}, None):
                titles.see(rows[column])
                if titles.has_missing:
                    break
            self.meant[column] = titles.are_meant
        return self.meant[column]

    def _do_quotes_tell(self, column: str) -> bool:
        """Whether quotes tell a title from a missing one in a column: not where every title is in quotes.

        The file is read up to the first title without quotes.
        """
        if column not in self.told_by_quotes:
            blocks = self._read({column: self.fields[column]}, None, marks_all=True)
            self.told_by_quotes[column] = any(has_bare_titles(rows[column]) for rows, _, _ in blocks)
        return self.told_by_quotes[column]

    def _titles(self, fields: Fields) -> list[str]:
        return [name for name, (_, kind) in fields.items() if kind == "title"]


def open_separated(file: Path, fields: Fields) -> SeparatedFile:
    """A file with a header line. Raises `DataError` if it lacks one of the names in `fields`."""
    form = read_form(file)
    for name, _ in fields.values():
        if name not in form.names:
            raise missing_column(file, name, form.names)
    return SeparatedFile(file, form, fields)


class _Parser:
    """Splits blocks of a text file into rows of `fields`. With `lines` it returns only the rows on these lines."""

    def __init__(self, form: Form, fields: Fields, lines: np.ndarray | None, *, marks_all: bool):
        self.form, self.fields, self.lines = form, fields, lines
        self.separator = form.inner_separator
        self.places = {name: form.names.index(key) for name, (key, _) in fields.items()}
        self.marks_all = marks_all
        self.titles = {name: self.places[name] for name, (_, kind) in fields.items() if kind == "title"}
        self.field = _field_pattern(self.separator.encode(), form.has_quotes)

    def rows(self, block: bytes, first: int, is_last: bool) -> tuple[pl.DataFrame, Problems, int]:
        """Read the rows in `block`, whose first line has the number `first`.

        Returns the fields and `line` of the rows that can be used, what is wrong with the others, and the number of
        bytes that both take. The bytes behind them are an incomplete row, to be read with the next block.
        """
        return self._by_polars(block, first, is_last) or self._one_by_one(block, first, is_last)

    def _by_polars(self, block: bytes, first: int, is_last: bool) -> tuple[pl.DataFrame, Problems, int] | None:
        """As `rows`. None where polars finds a fault, or would misunderstand the block."""
        if self.lines is None and (plain := self._plain(block, first)) is not None:
            return plain, {}, len(block)
        found = _find_rows(block, self.separator.encode(), self.form.has_quotes, first) if is_utf8(block) else None
        if found is None or len(block) - found.used > (0 if is_last else MAX_ROW_BYTES):
            return None
        kept = ~found.is_blank if self.lines is None else ~found.is_blank & is_in(found.lines, self.lines)
        is_wrong = kept & (found.num_separators != len(self.form.names) - 1)
        problems: Problems = {}
        for i in np.flatnonzero(is_wrong).tolist():
            row = block[found.starts[i] : found.ends[i]]
            if row.strip():
                problems[int(found.lines[i])] = self._wrong_width(row, int(found.num_separators[i]) + 1)
        kept &= ~is_wrong
        rows = self._parsed(found.joined(kept))
        if rows is None or rows.height != kept.sum():
            return None
        rows = self._marked(rows, lambda place: found.are_quoted(place)[kept])
        return rows.with_columns(line=pl.Series(found.lines[kept], dtype=pl.UInt32)), problems, found.used

    def _plain(self, block: bytes, first: int) -> pl.DataFrame | None:
        """The rows of a block without quotes, blank lines and rows of a wrong width. None for any other block."""
        if len(self.form.names) == 1 or (self.form.has_quotes and b'"' in block) or not is_utf8(block):
            return None
        num_rows, num_separators = (_count(block, end) for end in ("\n", self.separator))
        if num_separators != num_rows * (len(self.form.names) - 1):
            return None
        # The number of separators is right in total, so that a row lacks one only if another has one too many. Polars
        # refuses such a row where it reads all fields.
        rows = self._parsed(block, range(len(self.form.names)))
        if rows is None or rows.height != num_rows:
            return None
        return rows.with_columns(line=pl.Series(np.arange(first, first + num_rows, dtype=np.uint32)))

    def _parsed(self, text: bytes, places: Iterable[int] = ()) -> pl.DataFrame | None:
        """The fields of the rows. Numbers stay texts where one of them cannot be read as a number.

        The fields at `places` are read as well, and left out of the table. None where polars finds a fault.
        """
        if not text:
            return pl.DataFrame(schema=dict.fromkeys(self.fields, pl.String))
        for type_of_numbers in (pl.Float64, pl.String):
            types: dict[str, type[pl.DataType]] = dict.fromkeys(map(str, range(len(self.form.names))), pl.String)
            types |= {
                str(self.places[name]): type_of_numbers for name in self.fields if self.fields[name][1] == "number"
            }
            try:
                table = pl.read_csv(
                    text,
                    has_header=False,
                    schema=types,
                    separator=self.separator,
                    quote_char='"' if self.form.has_quotes and b'"' in text else None,
                    columns=sorted({*self.places.values(), *places}) or [0],
                )
            except pl.exceptions.PolarsError:
                continue
            return table.select(pl.col(str(place)).alias(name) for name, place in self.places.items())
        return None

    def _marked(self, rows: pl.DataFrame, are_quoted: Callable[[int], np.ndarray]) -> pl.DataFrame:
        """`rows` with `IN_QUOTES` before titles in quotes. `are_quoted(place)` says which fields at a place are."""
        for name, place in self.titles.items():
            marked = pl.repeat(True, rows.height, eager=True) if self.marks_all else are_names_for_nothing(rows[name])
            if self.form.has_quotes and marked.any():
                marked &= pl.Series(are_quoted(place))
                rows = rows.with_columns(pl.when(marked).then(IN_QUOTES + pl.col(name)).otherwise(name).alias(name))
        return rows

    def _one_by_one(self, block: bytes, first: int, is_last: bool) -> tuple[pl.DataFrame, Problems, int]:
        rows: list[tuple[str | int, ...]] = []
        quoted: list[tuple[int, ...]] = []
        problems: Problems = {}
        start, line = 0, first
        while start < len(block):
            values, places, end = self._split(block, start)
            if values is None or end is None:
                if end is None and not is_last and len(block) - start <= MAX_ROW_BYTES:
                    break
                end = block.index(b"\n", start) + 1
            row = block[start:end]
            start, number, line = end, line, line + row.count(b"\n")
            if not row.strip():
                continue
            try:
                row.decode("utf-8")
            except UnicodeDecodeError as error:
                problems[number] = f"not UTF-8 at byte {error.start + 1}. Save the file as UTF-8."
                continue
            if values is None:
                problems[number] = f"a quote is not closed, or more follows it: {self._excerpt(row)}"
            elif len(values) != len(self.form.names):
                problems[number] = self._wrong_width(row, len(values))
            else:
                rows.append((*(values[place].decode("utf-8") for place in self.places.values()), number))
                quoted.append(places)
        table = pl.DataFrame(rows, schema=dict.fromkeys(self.fields, pl.String) | {"line": pl.UInt32}, orient="row")
        table = self._marked(table, lambda place: np.array([place in places for places in quoted], bool))
        if self.lines is not None:
            table, problems = table.filter(pl.Series(is_in(table["line"].to_numpy(), self.lines))), {}
        return table, problems, start

    def _split(self, block: bytes, start: int) -> tuple[list[bytes] | None, tuple[int, ...], int | None]:
        """The fields of the row at `start`, the places of those in quotes, and where the row ends.

        The fields are None where a quote is out of place. The end is None where a quote is not closed.
        """
        values: list[bytes] = []
        places: list[int] = []
        while found := self.field.match(block, start):
            quoted, plain, end = found.groups()
            if quoted is not None:
                places.append(len(values))
            values.append(plain if quoted is None else quoted.replace(b'""', b'"'))
            start = found.end()
            if end == b"\n":
                values[-1] = values[-1].removesuffix(b"\r") if quoted is None else values[-1]
            if end.endswith(b"\n"):
                return values, tuple(places), start
        closed = _QUOTED.match(block, start)
        return None, (), closed and closed.end()

    def _wrong_width(self, row: bytes, num_fields: int) -> str:
        return f"{num_fields} fields where {len(self.form.names)} are due: {self._excerpt(row)}"

    def _excerpt(self, row: bytes) -> str:
        text = row.decode("utf-8").strip().replace(INNER_SEPARATOR, self.form.separator)
        return repr(shorten(text, MAX_EXCERPT_LENGTH))


_QUOTED = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')


def _field_pattern(separator: bytes, has_quotes: bool) -> re.Pattern[bytes]:
    """A pattern for one field. Its groups are the text in quotes, or else the field, and what ends the field."""
    by = re.escape(separator)
    quoted = rb'"([^"]*+(?:""[^"]*+)*+)"' if has_quotes else rb"(?!)()"
    plain = rb'((?!")[^%s\n]*+)' if has_quotes else rb"([^%s\n]*+)"
    return re.compile(rb"(?:%s|%s)(%s|\r?\n)" % (quoted, plain % by, by))


@dataclass(frozen=True)
class _Rows:
    """The complete rows of a block: row i is block[starts[i]:ends[i]], with its line end."""

    block: bytes
    starts: np.ndarray
    ends: np.ndarray
    lines: np.ndarray
    """The line on which each row starts."""
    separators: np.ndarray
    """Where the separators are that are not in quotes."""
    until: np.ndarray
    """How many of them are before the end of each row."""

    @property
    def num_separators(self) -> np.ndarray:
        """Separators in each row."""
        return np.diff(self.until, prepend=0)

    def are_quoted(self, place: int) -> np.ndarray:
        """Whether the field at a place of each row, counted from 0, starts with a quote, bool (n,)."""
        starts = self.starts
        if place:
            before = self.until - self.num_separators + place - 1
            starts = self.separators[np.minimum(before, len(self.separators) - 1)] + 1
        are: np.ndarray = np.frombuffer(self.block, np.uint8)[starts] == ord('"')
        return are

    @property
    def used(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def is_blank(self) -> np.ndarray:
        lengths = self.ends - self.starts
        is_return = np.frombuffer(self.block, np.uint8)[self.starts] == ord("\r")
        is_blank: np.ndarray = (lengths == 1) | ((lengths == 2) & is_return)
        return is_blank

    def joined(self, kept: np.ndarray) -> bytes:
        """The bytes of the rows where `kept` is true."""
        if kept.all():
            return self.block[: self.used]
        bounds = np.flatnonzero(np.diff(kept, prepend=False, append=False)).reshape(-1, 2)
        starts, ends = self.starts[bounds[:, 0]].tolist(), self.ends[bounds[:, 1] - 1].tolist()
        return b"".join([self.block[start:end] for start, end in zip(starts, ends, strict=True)])


def _find_rows(block: bytes, separator: bytes, has_quotes: bool, first: int) -> _Rows | None:
    """The complete rows of a block. None if a quote is neither at the start nor at the end of a field."""
    data = np.frombuffer(block, np.uint8)
    ends = np.flatnonzero(data == ord("\n"))
    lines = np.arange(first, first + len(ends))
    separators = np.flatnonzero(data == ord(separator))
    if has_quotes and b'"' in block:
        quotes = np.flatnonzero(data == ord('"'))
        before = data[quotes[::2] - 1]  # before the first byte that is the last, a line end
        after = data[quotes[1::2] + 1]
        bounds = np.frombuffer(separator + b'\n"', np.uint8)
        if not (np.isin(before, bounds).all() and np.isin(after, np.append(bounds, ord("\r"))).all()):
            return None
        is_outside = np.searchsorted(quotes, ends) % 2 == 0
        lines = np.concatenate([[first], 1 + lines[is_outside]])[:-1]
        ends = ends[is_outside]
        separators = separators[np.searchsorted(quotes, separators) % 2 == 0]
    until = np.searchsorted(separators, ends)
    ends = ends + 1
    starts = np.concatenate([[0], ends])[:-1]
    return _Rows(block, starts, ends, lines.astype(np.uint32), separators, until)


def _count(block: bytes, character: str, until: int = -1) -> int:
    return int(np.count_nonzero(np.frombuffer(block, np.uint8, until) == ord(character)))


def _with_last(blocks: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int, bool]]:
    """Each block, with whether it is the last."""
    held = next(blocks, None)
    while held is not None:
        following = next(blocks, None)
        yield *held, following is None
        held = following
