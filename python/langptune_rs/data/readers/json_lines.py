"""JSON lines, plain or .gz, with errors that name the file and the line.

`JsonLines` has polars read them in blocks. Lines that polars refuses, or may have understood differently from what
they say (a number where a text belongs), are read again one by one by `Row`, which decides what each line says.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from langptune_rs.data.readers.bad_lines import BadLines, Problems
from langptune_rs.data.readers.blocks import map_ahead, read_blocks
from langptune_rs.data.readers.json_rows import BadLine, Row, parse_json, parse_line
from langptune_rs.data.readers.missing import Titles
from langptune_rs.data.readers.reader import Request, with_columns
from langptune_rs.data.readers.values import Fields, Kind, clean_values, without_missing_titles
from langptune_rs.errors import DataError

_TYPES: dict[Kind, pl.DataType] = {
    "identifier": pl.String(),
    "title": pl.String(),
    "text": pl.String(),
    "texts": pl.List(pl.String()),
    "words": pl.List(pl.String()),
    "joined_texts": pl.List(pl.String()),
    "number": pl.Float64(),
    "price": pl.String(),
}
"""What polars is asked to read a field as."""

_NO_TEXT = r"^\s*(true|false|[-+]?\d[\d.eE+-]*\s*$|\{|\[)"
"""What polars makes a text of other JSON values."""


@dataclass(frozen=True)
class JsonLines:
    """A file of JSON lines as a `Reader`."""

    file: Path
    fields: Fields
    parse: Callable[[bytes], Any] | None = None
    """Reads one line, for files whose lines are not JSON."""
    required: frozenset[str] = frozenset()
    """Keys that the user named, so that some line must have them."""
    places: list[_Place] = field(default_factory=list, init=False, repr=False, compare=False)
    """Where the lines of each block are, once the file was read to its end."""
    meant: dict[str, bool] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Column of titles -> whether "None" is a title there, once it was asked."""

    def chunks(self, request: Request) -> Iterator[pl.DataFrame]:
        """See `Reader.chunks`. Raises `DataError` also for a file that has a required key on no line."""
        if request.lines is not None:
            yield from self._chosen(request, request.lines)
            return
        unseen = set(self.required)
        places: list[_Place] = []
        first = 1
        for frame, problems, found, num_bytes in self._read(request.columns, self._blocks(unseen)):
            request.bad.add_all(self.file, problems, first)
            places.append(_Place(first, found.starts.astype(np.uint32), len(found.block)))
            frame = without_missing_titles(frame, self.fields, self._are_meant)
            yield with_columns(frame.with_columns(pl.col("line") + pl.lit(first, pl.UInt32)), request.columns)
            first += len(found.starts)
            request.advance(num_bytes)
        if unseen:
            raise DataError(f"{self.file} has the field {min(unseen)!r} on no line. Mend the --column that names it.")
        self.places[:] = places

    def _chosen(self, request: Request, lines: np.ndarray) -> Iterator[pl.DataFrame]:
        """As `chunks`, only the rows on `lines`."""
        if not self.places:  # mostly this reader has read the file before, to find out which lines are wanted
            for _ in self.chunks(Request((), BadLines("skip"))):
                pass
        for frame, problems, _, num_bytes in self._read(request.columns, self._blocks_of(lines)):
            request.bad.add_all(self.file, problems)
            yield with_columns(without_missing_titles(frame, self.fields, self._are_meant), request.columns)
            request.advance(num_bytes)

    def _are_meant(self, column: str) -> bool:
        """Whether "None" is a title in a column. The file is read up to the first missing title to know it."""
        if column not in self.meant:
            titles = Titles(has_nulls=True)
            for frame, _, _, _ in self._read([column], self._blocks(set())):
                titles.see(frame[column])
                if titles.has_missing:
                    break
            self.meant[column] = titles.are_meant
        return self.meant[column]

    def _read(
        self, wanted: Sequence[str], parts: Iterable[_Part]
    ) -> Iterator[tuple[pl.DataFrame, Problems, _Lines, int]]:
        """For each part the rows, what is wrong with the other lines, the lines, and their bytes in the file."""
        columns = [name for name in wanted if name in self.fields]

        def read_part(part: _Part) -> tuple[pl.DataFrame, Problems, _Lines, int]:
            find, num_bytes = part
            lines = find()
            return *self._rows(lines, columns), lines, num_bytes

        return map_ahead(read_part, parts)

    def _blocks(self, unseen: set[str]) -> Iterator[_Part]:
        """Every block of the file, with lines numbered from 0. Keys that a block has are taken out of `unseen`."""
        for block, num_bytes in read_blocks(self.file):
            unseen.difference_update([key for key in unseen if json.dumps(key, ensure_ascii=False).encode() in block])
            yield partial(_find_lines, block), num_bytes

    def _blocks_of(self, lines: np.ndarray) -> Iterator[_Part]:
        """The blocks with any of `lines`, and only these lines. Other blocks of a plain file are not read."""
        blocks: Iterator[tuple[Callable[[], bytes], int]]
        if self.file.suffix == ".gz":
            blocks = ((partial(bytes, block), num_bytes) for block, num_bytes in read_blocks(self.file))
        else:
            blocks = self._blocks_by_place()
        for (block, num_bytes), place in zip(blocks, self.places, strict=True):
            low, high = np.searchsorted(lines, (place.first, place.first + len(place.starts)))
            if low < high:
                yield partial(_pick_lines, block, place, lines[low:high]), num_bytes

    def _blocks_by_place(self) -> Iterator[tuple[Callable[[], bytes], int]]:
        offset = self.file.stat().st_size - sum(place.length for place in self.places)  # a byte order mark
        for place in self.places:
            yield partial(_read_at, self.file, offset, place.length), place.length
            offset += place.length

    def _rows(self, lines: _Lines, columns: Sequence[str]) -> tuple[pl.DataFrame, Problems]:
        """The columns and `line` of the lines that can be used, and what is wrong with the others."""
        schema = pl.Schema({name: _column_type(self.fields[name][1]) for name in columns} | {"line": pl.UInt32()})
        fast = None if self.parse or not len(lines.numbers) else self._by_polars(lines, columns)
        if fast is None:
            return self._line_by_line(lines, columns, schema)
        doubtful = fast["doubtful"].to_numpy()
        frame = (fast.filter(~pl.col("doubtful")) if doubtful.any() else fast).select(schema.keys())
        frame = frame.with_columns(clean_values(frame[name], self.fields[name][1]) for name in columns)
        if not doubtful.any():
            return frame, {}
        again, problems = self._line_by_line(lines.at(doubtful), columns, schema)
        return pl.concat([frame, again]).sort("line"), problems

    def _by_polars(self, lines: _Lines, columns: Sequence[str]) -> pl.DataFrame | None:
        """The raw columns, `line`, and `doubtful` for each row. None where polars finds a fault or a blank line."""
        kinds = {name: self.fields[name][1] for name in columns}
        raw = {self.fields[name][0]: _TYPES[kind] for name, kind in kinds.items()}
        if len(raw) != len(columns):
            return None
        try:
            frame = pl.read_ndjson(lines.block, schema=raw)
        except pl.exceptions.PolarsError:
            return None
        if frame.height != len(lines.numbers):
            return None
        ids = [self.fields[name][0] for name, kind in kinds.items() if kind == "identifier"]
        if any(_has_fractions(frame[key], key, lines.block) for key in ids):
            return None
        return frame.select(
            *(pl.col(self.fields[name][0]).alias(name) for name in columns),
            line=pl.Series(lines.numbers),
            doubtful=pl.any_horizontal(
                pl.lit(False), *(_is_doubtful(pl.col(self.fields[name][0]), kind) for name, kind in kinds.items())
            ),
        )

    def _line_by_line(self, lines: _Lines, columns: Sequence[str], schema: pl.Schema) -> tuple[pl.DataFrame, Problems]:
        read = [(getattr(Row, kind), key) for key, kind in (self.fields[name] for name in columns)]
        rows: list[tuple[Any, ...]] = []
        problems: Problems = {}
        for number, line in lines:
            if not line.strip():
                continue
            try:
                row = Row(self.file, number, parse_line(self.file, number, line, self.parse or parse_json))
                rows.append((*(method(row, key) for method, key in read), number))
            except BadLine as error:
                problems[number] = error.problem
        return pl.DataFrame(rows, schema=schema, orient="row"), problems


class _Place(NamedTuple):
    """Where the lines of a block are."""

    first: int
    """The number of the first line in the file."""
    starts: np.ndarray
    """Where each line starts in the block, uint32."""
    length: int
    """Bytes of the block."""


@dataclass(frozen=True)
class _Lines:
    """Some lines of `block`: line i is block[starts[i]:ends[i]], with its newline, and has the number numbers[i]."""

    block: bytes
    starts: np.ndarray
    ends: np.ndarray
    numbers: np.ndarray

    def at(self, mask: np.ndarray) -> _Lines:
        return _Lines(self.block, self.starts[mask], self.ends[mask], self.numbers[mask])

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for number, start, end in zip(self.numbers.tolist(), self.starts.tolist(), self.ends.tolist(), strict=True):
            yield number, self.block[start:end]


_Part = tuple[Callable[[], _Lines], int]
"""A function that finds the lines of a block, and the bytes of the file that the block took."""


def _column_type(kind: Kind) -> pl.DataType:
    return pl.String() if kind == "joined_texts" else _TYPES[kind]


def _is_doubtful(column: pl.Expr, kind: Kind) -> pl.Expr:
    """Where the file may hold a value of another kind than `column` shows."""
    match kind:
        case "identifier":
            # Whole numbers are identifiers too.
            other = column.str.contains(_NO_TEXT) & ~column.str.contains(r"^-?\d+$")
            return column.is_null() | (column.str.strip_chars() == "") | other | _has_null_character(column)
        case "title" | "text":
            return (column.str.contains(_NO_TEXT) | _has_null_character(column)).fill_null(False)
        case "texts" | "joined_texts":
            text = pl.element()
            each = text.is_null() | text.str.contains(_NO_TEXT) | _has_null_character(text)
            return column.list.eval(each).list.any().fill_null(False)
        case "price":
            # 17.0 comes as 17, and numbers that Python writes with an exponent come without.
            other = column.str.contains(r"^\s*(true|false|\{|\[|-?\d+$|-?0\.000|-?[\d.]+[eE])")
            return (other | _has_null_character(column)).fill_null(False)
    return pl.lit(False)


def _has_null_character(text: pl.Expr) -> pl.Expr:
    """Where `text` has the character that polars reads half a surrogate pair as."""
    return text.str.contains("\0", literal=True)


def _has_fractions(ids: pl.Series, key: str, block: bytes) -> bool:
    """Whether `block` may hold ids such as 7.0, which polars shows as "7"."""
    pattern = re.escape(json.dumps(key, ensure_ascii=False).encode()) + rb"\s*:\s*-?\d+[.eE]"
    return bool(ids.str.contains(r"^-?\d+$").any()) and re.search(pattern, block) is not None


def _find_lines(block: bytes) -> _Lines:
    """The lines of a block that is not empty, numbered from 0."""
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n")) + 1
    if not len(ends) or ends[-1] != len(block):
        ends = np.append(ends, len(block))
    starts = np.concatenate([[0], ends[:-1]])
    return _Lines(block, starts, ends, np.arange(len(ends), dtype=np.uint32))


def _read_at(path: Path, offset: int, length: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(offset)
        return file.read(length)


def _pick_lines(block: Callable[[], bytes], place: _Place, numbers: np.ndarray) -> _Lines:
    """The lines `numbers` of a block, joined."""
    data, rows = block(), numbers.astype(np.int64) - place.first
    bounds = np.append(place.starts, place.length).astype(np.int64)
    starts, ends = bounds[rows], bounds[rows + 1]
    joined = b"".join([data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)])
    lengths = ends - starts
    ends = np.cumsum(lengths)
    return _Lines(joined, ends - lengths, ends, numbers.astype(np.uint32))
