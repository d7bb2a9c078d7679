"""Tables as `Reader`s: text with a separator between its fields, plain or .gz, and parquet.

Ids stay as they are written ("007" is not 7). A field with nothing but blanks is null.

`SeparatedFile` has polars read blocks of a file. A block that polars would misunderstand (quotes out of place, bytes
that are no UTF-8) is split field by field in Python, which finds the rows that are wrong.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from langptune_rs.data.readers.blocks import first_line, is_in, read_blocks
from langptune_rs.data.readers.cleaning import clean_lists, clean_series
from langptune_rs.data.sources.raw import INTERACTION_SCHEMA, ITEM_SCHEMA, BadLines, Reader
from langptune_rs.data.wording.excerpts import shorten
from langptune_rs.errors import DataError, nearest

Kind = Literal["identifier", "text", "texts", "words", "joined_texts", "number", "price"]
"""`texts` are a list, in one field with `|` between them; `words` likewise with spaces."""

Fields = Mapping[str, tuple[str, Kind]]
"""Column -> its name in the file, and how its values are read."""

Problems = dict[int, str]
"""Line -> what is wrong there."""

LIST_SEPARATOR = "|"
BATCH_ROWS = 50_000
MAX_ROW_BYTES = 64 << 20
"""A quoted field that is not closed within so many bytes is not closed at all."""

_SCHEMA = ITEM_SCHEMA | INTERACTION_SCHEMA
_EXCERPT_LENGTH = 80
_INNER_SEPARATOR = "\x1f"
"""Stands for a separator of several characters, which polars does not know."""


@dataclass(frozen=True)
class Form:
    """How the rows of a text file are written."""

    names: tuple[str, ...]
    """Of the fields of each row."""
    separator: str = ","
    has_header: bool = True
    has_quotes: bool = True
    """Whether a field in "quotes" may hold separators and line ends."""
    is_latin: bool = False
    """Latin-1 where it is not UTF-8."""

    def normalised(self, block: bytes) -> bytes:
        """`block` with UTF-8 in place of Latin-1, and one byte in place of a longer separator."""
        if self.is_latin and not _is_utf8(block):
            block = block.decode("latin-1").encode("utf-8")
        return block if len(self.separator) == 1 else block.replace(self.separator.encode(), _INNER_SEPARATOR.encode())


def read_form(file: Path) -> Form:
    """The form of a file with a header line, its separator the most frequent of comma, semicolon and tab there.

    Raises `DataError` for a header that names nothing, or a name twice.
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
    """The first line. Raises `DataError` if it is blank, or no UTF-8."""
    line = first_line(file)
    if not line.strip():
        raise DataError(f"{file} is empty. Its first line must name its columns.")
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}, line 1: not UTF-8 at byte {error.start + 1}. Save it as UTF-8.") from error


@dataclass(frozen=True)
class SeparatedFile:
    """A text file of rows and fields as a `Reader`."""

    file: Path
    form: Form
    fields: Fields

    @property
    def size(self) -> int:
        return self.file.stat().st_size

    def chunks(
        self,
        columns: Sequence[str],
        bad: BadLines,
        *,
        lines: np.ndarray | None = None,
        advance: Callable[[int], None] = lambda units: None,
    ) -> Iterator[pl.DataFrame]:
        """See `Reader.chunks`. A row's line is that on which it starts."""
        fields = {name: self.fields[name] for name in columns if name in self.fields}
        parser = _Parser(self.form, fields, lines)
        first, rest = 1, b""
        for block, consumed, is_last in _with_last(read_blocks(self.file)):
            text = rest + self.form.normalised(block)
            if self.form.has_header and first == 1 and not rest:
                text = b"\n" + text.partition(b"\n")[2]
            if is_last and not text.endswith(b"\n"):
                text += b"\n"
            rows, problems, used = parser.rows(text, first, is_last)
            for line, problem in sorted(problems.items()):
                bad.add(self.file, line, problem)
            if rows.height:
                yield _with_all(rows, columns)
            rest = text[used:]
            first += _count(text, "\n", used)
            advance(consumed)


def open_separated(file: Path, fields: Fields) -> SeparatedFile:
    """A file with a header line. Raises `DataError` if it lacks one of the names in `fields`."""
    form = read_form(file)
    for name, _ in fields.values():
        if name not in form.names:
            raise lacks_column(file, name, form.names)
    return SeparatedFile(file, form, fields)


def lacks_column(file: Path, name: str, there: Iterable[str]) -> DataError:
    names = list(there)
    return DataError(f"{file} lacks the column {name!r}. It has {', '.join(names)}.{nearest(name, names)}")


@dataclass(frozen=True)
class ParquetFile:
    """A parquet file as a `Reader`. A row's line is its place, from 1."""

    file: Path
    fields: Fields

    @property
    def size(self) -> int:
        return self.file.stat().st_size

    def chunks(
        self,
        columns: Sequence[str],
        bad: BadLines,
        *,
        lines: np.ndarray | None = None,
        advance: Callable[[int], None] = lambda units: None,
    ) -> Iterator[pl.DataFrame]:
        """See `Reader.chunks`."""
        fields = {name: self.fields[name] for name in columns if name in self.fields}
        types = parquet_types(self.file)
        values = [_from_parquet(self.file, name, types, *fields[name]) for name in fields]
        advanced = 0
        try:
            scan = pl.scan_parquet(self.file, row_index_name="line", row_index_offset=1)
            num_rows = scan.select(pl.len()).collect().item()
            batches = scan.select(*values, "line").collect_batches(chunk_size=BATCH_ROWS, maintain_order=True)
            for batch in batches:
                reached = self.size * batch["line"][-1] // num_rows
                if lines is not None:
                    batch = batch.filter(pl.Series(is_in(batch["line"].to_numpy(), lines)))
                rows, problems = _finished(batch, fields)
                for line, problem in sorted(problems.items()):
                    bad.add(self.file, line, problem)
                if rows.height:
                    yield _with_all(rows, columns)
                advance(reached - advanced)
                advanced = reached
        except pl.exceptions.PolarsError as error:
            raise _no_parquet(self.file, error) from error


def parquet_types(file: Path) -> dict[str, pl.DataType]:
    """The columns of a parquet file. Raises `DataError` for another file."""
    try:
        return dict(pl.read_parquet_schema(file))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _no_parquet(file, error) from error


def _no_parquet(file: Path, error: Exception) -> DataError:
    reason = str(error).splitlines()[0] if str(error) else "broken"
    return DataError(f"{file} is no complete parquet file: {reason}. Write or get it again.")


def _from_parquet(file: Path, column: str, types: Mapping[str, pl.DataType], name: str, kind: Kind) -> pl.Expr:
    """The values of a field as a text, a list of texts or a number. Raises `DataError` where they are none."""
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


@dataclass(frozen=True)
class Computed:
    """Another `Reader` with columns that are computed from several of its own."""

    reader: Reader
    made: Mapping[str, tuple[tuple[str, ...], Callable[..., pl.Expr]]]
    """Column -> the columns it is made of, and how."""

    @property
    def file(self) -> Path:
        return self.reader.file

    @property
    def size(self) -> int:
        return self.reader.size

    def chunks(
        self,
        columns: Sequence[str],
        bad: BadLines,
        *,
        lines: np.ndarray | None = None,
        advance: Callable[[int], None] = lambda units: None,
    ) -> Iterator[pl.DataFrame]:
        """See `Reader.chunks`."""
        made = {name: self.made[name] for name in columns if name in self.made}
        needed = dict.fromkeys(part for name in columns for part in (made[name][0] if name in made else (name,)))
        exprs = [make(*map(pl.col, parts)).alias(name) for name, (parts, make) in made.items()]
        for rows in self.reader.chunks(list(needed), bad, lines=lines, advance=advance):
            yield rows.with_columns(exprs).select(*columns, "line")


class _Parser:
    """Splits blocks of a text file into rows of `fields`, only those on `lines` if given."""

    def __init__(self, form: Form, fields: Fields, lines: np.ndarray | None):
        self.form, self.fields, self.lines = form, fields, lines
        self.separator = form.separator if len(form.separator) == 1 else _INNER_SEPARATOR
        self.places = {name: form.names.index(key) for name, (key, _) in fields.items()}
        self.field = _field_pattern(self.separator.encode(), form.has_quotes)

    def rows(self, block: bytes, first: int, is_last: bool) -> tuple[pl.DataFrame, Problems, int]:
        """The columns and `line` of the rows in `block`, whose first line has the number `first`, and what is wrong.

        Also how many bytes these rows take: where the last is not complete it is to be read with the next block.
        """
        rows, problems, used = self._by_polars(block, first, is_last) or self._one_by_one(block, first, is_last)
        rows, others = _finished(rows, self.fields)
        return rows, problems | others, used

    def _by_polars(self, block: bytes, first: int, is_last: bool) -> tuple[pl.DataFrame, Problems, int] | None:
        """None where polars finds a fault, or would misunderstand the block."""
        if self.lines is None and (plain := self._plain(block, first)) is not None:
            return plain, {}, len(block)
        found = _find_rows(block, self.separator.encode(), self.form.has_quotes, first) if _is_utf8(block) else None
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
        return rows.with_columns(line=pl.Series(found.lines[kept], dtype=pl.UInt32)), problems, found.used

    def _plain(self, block: bytes, first: int) -> pl.DataFrame | None:
        """The rows of a block without quotes, blank lines and rows of a wrong width; none for another."""
        if len(self.form.names) == 1 or (self.form.has_quotes and b'"' in block) or not _is_utf8(block):
            return None
        num_rows, num_separators = (_count(block, end) for end in ("\n", self.separator))
        if num_separators != num_rows * (len(self.form.names) - 1):
            return None
        # With as many separators as are due no row lacks one unless another has one too many, which polars refuses
        # where it reads all fields.
        rows = self._parsed(block, range(len(self.form.names)))
        if rows is None or rows.height != num_rows:
            return None
        return rows.with_columns(line=pl.Series(np.arange(first, first + num_rows, dtype=np.uint32)))

    def _parsed(self, text: bytes, places: Iterable[int] = ()) -> pl.DataFrame | None:
        """The fields; numbers as texts where one of them is none. Those at `places` are read too and left out."""
        if not text:
            return pl.DataFrame(schema=dict.fromkeys(self.fields, pl.String))
        for type_of_numbers in (pl.Float64, pl.String):
            types = dict.fromkeys(map(str, range(len(self.form.names))), pl.String)
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

    def _one_by_one(self, block: bytes, first: int, is_last: bool) -> tuple[pl.DataFrame, Problems, int]:
        rows: list[tuple[str | int, ...]] = []
        problems: Problems = {}
        start, line = 0, first
        while start < len(block):
            values, end = self._split(block, start)
            if values is None and end is None and not is_last and len(block) - start <= MAX_ROW_BYTES:
                break
            if values is None:
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
        table = pl.DataFrame(rows, schema=dict.fromkeys(self.fields, pl.String) | {"line": pl.UInt32}, orient="row")
        if self.lines is not None:
            table, problems = table.filter(pl.Series(is_in(table["line"].to_numpy(), self.lines))), {}
        return table, problems, start

    def _split(self, block: bytes, start: int) -> tuple[list[bytes] | None, int | None]:
        """The fields of the row at `start`, and where it ends: without fields at a fault, without end if not closed."""
        values = []
        while found := self.field.match(block, start):
            quoted, plain, end = found.groups()
            values.append(plain if quoted is None else quoted.replace(b'""', b'"'))
            start = found.end()
            if end == b"\n":
                values[-1] = values[-1].removesuffix(b"\r") if quoted is None else values[-1]
            if end.endswith(b"\n"):
                return values, start
        closed = _QUOTED.match(block, start)
        return None, closed and closed.end()

    def _wrong_width(self, row: bytes, num_fields: int) -> str:
        return f"{num_fields} fields where {len(self.form.names)} are due: {self._excerpt(row)}"

    def _excerpt(self, row: bytes) -> str:
        text = row.decode("utf-8").strip().replace(_INNER_SEPARATOR, self.form.separator)
        return repr(shorten(text, _EXCERPT_LENGTH))


_QUOTED = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"')


def _field_pattern(separator: bytes, has_quotes: bool) -> re.Pattern[bytes]:
    """Groups: what stands in quotes, or else the field; and what ends it."""
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
    """On which each row starts."""
    num_separators: np.ndarray
    """Outside quotes."""

    @property
    def used(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    @property
    def is_blank(self) -> np.ndarray:
        lengths = self.ends - self.starts
        is_return = np.frombuffer(self.block, np.uint8)[self.starts] == ord("\r")
        return (lengths == 1) | ((lengths == 2) & is_return)

    def joined(self, kept: np.ndarray) -> bytes:
        """These rows alone."""
        if kept.all():
            return self.block[: self.used]
        bounds = np.flatnonzero(np.diff(kept, prepend=False, append=False)).reshape(-1, 2)
        starts, ends = self.starts[bounds[:, 0]].tolist(), self.ends[bounds[:, 1] - 1].tolist()
        return b"".join([self.block[start:end] for start, end in zip(starts, ends, strict=True)])


def _find_rows(block: bytes, separator: bytes, has_quotes: bool, first: int) -> _Rows | None:
    """None if a quote stands neither at the start nor at the end of a field."""
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
    return _Rows(block, starts, ends, lines.astype(np.uint32), np.diff(until, prepend=0))


def _finished(rows: pl.DataFrame, fields: Fields) -> tuple[pl.DataFrame, Problems]:
    """`rows` with their values cleaned, without those that lack an id or have a number that is none."""
    problems: Problems = {}
    is_wrong = np.zeros(rows.height, bool)
    for name, (key, kind) in fields.items():
        if kind not in ("identifier", "number"):
            continue
        texts = rows[name]
        if kind == "identifier":
            wrong = _is_blank(texts)
            problem = "{key} is blank. Every row needs one."
        else:
            numbers = _as_number(texts)
            rows = rows.with_columns(numbers)
            wrong = ~numbers.is_finite().fill_null(True)
            if texts.dtype == pl.String:
                wrong |= numbers.is_null() & ~_is_blank(texts)
            problem = "{key} = {value} is no number. Give a number, or leave it out."
        for i in wrong.arg_true().to_list() if wrong.any() else ():
            value = shorten(repr(str(texts[i])), _EXCERPT_LENGTH)
            problems.setdefault(rows["line"][i], problem.format(key=key, value=value))
        is_wrong |= wrong.to_numpy()
    if problems:
        rows = rows.filter(~pl.Series(is_wrong))
    return rows.with_columns(_cleaned(rows[name], kind) for name, (_, kind) in fields.items()), problems


def _is_blank(ids: pl.Series) -> pl.Series:
    """Whether each is null or has no character but blanks."""
    may_be_blank = ((ids < "!") | (ids > "~")).fill_null(True)  # by the first character
    return (ids.str.strip_chars() == "").fill_null(True) if may_be_blank.any() else may_be_blank


def _as_number(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Float64:
        return values
    return values.str.strip_chars().cast(pl.Float64, strict=False)


def _cleaned(values: pl.Series, kind: Kind) -> pl.Series:
    match kind:
        case "text":
            return _clean_texts(values)
        case "price":
            texts = _clean_texts(values)
            return texts.set(~texts.str.contains(r"[\p{L}\p{N}]"), None)
        case "texts":
            return clean_lists(_lists(values, LIST_SEPARATOR))
        case "words":
            return clean_lists(_lists(values, " "))
        case "joined_texts":
            joined = clean_lists(_lists(values, None)).list.join(" ")
            return joined.set(joined == "", None)
    return values


def _clean_texts(texts: pl.Series) -> pl.Series:
    return clean_series(texts.set(texts.str.strip_chars() == "", None))


def _lists(values: pl.Series, separator: str | None) -> pl.Series:
    """Lists as they are, without nulls; texts split at `separator`, or as lists of one where that is none."""
    if values.dtype == pl.List(pl.String):
        return values.list.drop_nulls()
    values = values.cast(pl.String)
    if separator is not None:
        return values.str.split(separator)
    return pl.select(pl.when(values.is_not_null()).then(pl.concat_list(values))).to_series().alias(values.name)


def _with_all(rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    """`columns` and `line`, with nulls, or empty lists, where the file has no such field."""
    types = {name: _SCHEMA.get(name, pl.String) for name in columns if name not in rows.columns}
    missing = (pl.lit([] if isinstance(dtype, pl.List) else None, dtype).alias(name) for name, dtype in types.items())
    return rows.with_columns(missing).select(*columns, "line")


def _count(block: bytes, character: str, until: int = -1) -> int:
    return int(np.count_nonzero(np.frombuffer(block, np.uint8, until) == ord(character)))


def _is_utf8(block: bytes) -> bool:
    if block.isascii():
        return True
    try:
        block.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _with_last(blocks: Iterator[tuple[bytes, int]]) -> Iterator[tuple[bytes, int, bool]]:
    """Each block, with whether it is the last."""
    held = next(blocks, None)
    while held is not None:
        following = next(blocks, None)
        yield *held, following is None
        held = following
