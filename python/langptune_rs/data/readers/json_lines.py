"""JSON lines, plain or .gz, with errors that name the file and the line.

`JsonLines` reads them in blocks by polars. What polars refuses, or may have understood otherwise than it stands there
(a number where a text should be), is read again line by line by `Row`, which decides what each line says.
"""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NoReturn

import numpy as np
import orjson
import polars as pl

from langptune_rs.data.readers.blocks import ahead, read_blocks
from langptune_rs.data.readers.cleaning import clean, clean_lists, clean_series, is_encodable
from langptune_rs.data.sources.raw import INTERACTION_SCHEMA, ITEM_SCHEMA, BadLines
from langptune_rs.data.wording.excerpts import shorten
from langptune_rs.errors import DataError

_EXCERPT_LENGTH = 80
SCHEMA = ITEM_SCHEMA | INTERACTION_SCHEMA

Kind = Literal["identifier", "text", "texts", "joined_texts", "number", "price"]

_TYPES = {
    "identifier": pl.String,
    "text": pl.String,
    "texts": pl.List(pl.String),
    "joined_texts": pl.List(pl.String),
    "number": pl.Float64,
    "price": pl.String,
}
Problems = list[tuple[int, str]]
"""Lines and what is wrong with them."""

_NO_TEXT = r"^\s*(true|false|[-+]?\d[\d.eE+-]*\s*$|\{|\[)"
"""What polars also makes a text of: other JSON values."""


class BadLine(DataError):
    """A line that cannot be used, and why."""

    def __init__(self, file: Path, line: int, problem: str):
        super().__init__(f"{file}, line {line}: {problem}")
        self.problem = problem


class Row:
    """One object of a file. Its methods, one for each `Kind`, read a field and raise `BadLine` for another kind."""

    __slots__ = ("file", "line", "values")

    def __init__(self, file: Path, line: int, values: dict[str, Any]):
        self.file, self.line, self.values = file, line, values

    def fail(self, problem: str) -> NoReturn:
        raise BadLine(self.file, self.line, problem)

    def identifier(self, key: str) -> str:
        """A text or whole number that is not empty."""
        value = self.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value.strip() or not is_encodable(value):
            self.fail(f"{key} = {_show(value)} identifies nothing. Give a text or a whole number.")
        return value

    def text(self, key: str) -> str | None:
        """A cleaned text, empty if the text is; none where it is null or absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.fail(f"{key} = {_show(value)} is no text. Give a text or null.")
        return clean(value)

    def texts(self, key: str) -> list[str]:
        """A list of cleaned texts, lists within it opened; a single text is a list of one, null an empty one."""
        value = self.values.get(key)
        if value is None:
            return []
        values = [value] if isinstance(value, str) else value
        if isinstance(values, list):
            values = [text for part in values for text in (part if isinstance(part, list) else [part])]
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            self.fail(f"{key} = {_show(value)} is no list of texts.")
        return [text for text in map(clean, values) if text]

    def joined_texts(self, key: str) -> str | None:
        """A text, or a list of texts as one; none where there is no word in it."""
        return " ".join(self.texts(key)) or None

    def number(self, key: str) -> float | None:
        """A finite number; none where it is null or absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.fail(f"{key} = {_show(value)} is no number. Give a number or null.")
        return float(value)

    def price(self, key: str) -> str | None:
        """A number as it stands in the file, or a text such as "$4.99"; none for a text without letter or digit."""
        if isinstance(self.values.get(key), str):
            return next((text for text in [self.text(key)] if any(map(str.isalnum, text))), None)
        return None if self.number(key) is None else str(self.values[key])


@dataclass(frozen=True)
class JsonLines:
    """A file of JSON lines as a `Reader`."""

    file: Path
    fields: Mapping[str, tuple[str, Kind]]
    """Column -> the key in the file, and how its value is read."""
    parse: Callable[[bytes], Any] | None = None
    """Reads one line that is no JSON."""
    required: frozenset[str] = frozenset()
    """Keys that must be on some line, since the user named them."""
    places: list[tuple[int, np.ndarray, int]] = field(default_factory=list, init=False, repr=False, compare=False)
    """Of each block of the file, once it was read to its end: the number of the first line, where in the block its
    lines start (uint32), and its length."""

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
        there = [name for name in columns if name in self.fields]
        missing = [pl.lit(None, dtype=SCHEMA[name]).alias(name) for name in columns if name not in there]
        if lines is not None and not self.places:
            # Whoever asks for lines knows their numbers, and has mostly read the file by this reader.
            for _ in self.chunks((), BadLines("skip")):
                pass
        unseen = set(self.required) if lines is None else set()
        places, first = [], 1
        parts = self._found(unseen) if lines is None else self._found_again(lines)
        for frame, problems, found, consumed in ahead(partial(self._made, there), parts):
            frame = frame.with_columns(pl.col("line") + pl.lit(first if lines is None else 0, pl.UInt32))
            for line, problem in problems:
                bad.add(self.file, line + (first if lines is None else 0), problem)
            if lines is None:
                places.append((first, found.starts.astype(np.uint32), len(found.block)))
                first += len(found.starts)
            yield frame.with_columns(missing).select(*columns, "line")
            advance(consumed)
        if unseen:
            raise DataError(f"{self.file} has the field {min(unseen)!r} on no line. Mend the --column that names it.")
        if lines is None:
            self.places[:] = places

    def _found(self, unseen: set[str]) -> Iterator[tuple[Callable[[], _Lines], int]]:
        """Per block: what finds its lines, numbered from 0, and the bytes of the file that they took.

        Keys that stand in a block are taken out of `unseen`.
        """
        for block, consumed in read_blocks(self.file):
            unseen.difference_update([key for key in unseen if json.dumps(key, ensure_ascii=False).encode() in block])
            yield partial(_find_lines, block), consumed

    def _found_again(self, lines: np.ndarray) -> Iterator[tuple[Callable[[], _Lines], int]]:
        """As `_found`, with the lines of these numbers alone; of a plain file blocks without any are not read."""
        if self.file.suffix == ".gz":
            blocks = ((partial(bytes, block), consumed) for block, consumed in read_blocks(self.file))
        else:
            blocks = self._blocks_by_place()
        for (block, consumed), (first, starts, length) in zip(blocks, self.places, strict=True):
            low, high = np.searchsorted(lines, (first, first + len(starts)))
            if low < high:
                yield partial(_pick_lines, block, starts, length, lines[low:high], first), consumed

    def _blocks_by_place(self) -> Iterator[tuple[Callable[[], bytes], int]]:
        offset = self.size - sum(length for _, _, length in self.places)  # a byte order mark
        for _, _, length in self.places:
            yield partial(_read_at, self.file, offset, length), length
            offset += length

    def _made(
        self, columns: Sequence[str], part: tuple[Callable[[], _Lines], int]
    ) -> tuple[pl.DataFrame, Problems, _Lines, int]:
        find, consumed = part
        found = find()
        return *self._read(found, columns), found, consumed

    def _read(self, lines: _Lines, columns: Sequence[str]) -> tuple[pl.DataFrame, Problems]:
        """The columns and `line` of these lines, and what is wrong with which."""
        schema = {name: _column_type(self.fields[name][1]) for name in columns} | {"line": pl.UInt32}
        fast = None if self.parse or not len(lines.numbers) else self._by_polars(lines, columns)
        if fast is None:
            return self._line_by_line(lines, columns, schema)
        doubtful = fast["doubtful"].to_numpy()
        frame = (fast.filter(~pl.col("doubtful")) if doubtful.any() else fast).select(schema.keys())
        frame = frame.with_columns(self._cleaned(name, frame[name]) for name in columns)
        if not doubtful.any():
            return frame, []
        again, problems = self._line_by_line(lines.at(doubtful), columns, schema)
        return pl.concat([frame, again]).sort("line"), problems

    def _by_polars(self, lines: _Lines, columns: Sequence[str]) -> pl.DataFrame | None:
        """The raw columns, `line`, and `doubtful` for each row; none where polars finds a fault or a blank line."""
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

    def _cleaned(self, name: str, values: pl.Series) -> pl.Series:
        match self.fields[name][1]:
            case "text":
                return clean_series(values)
            case "texts":
                return clean_lists(values)
            case "joined_texts":
                joined = clean_lists(values).list.join(" ")
                return joined.set(joined == "", None)
            case "price":
                prices = clean_series(values)
                return prices.set(~prices.str.contains(r"[\p{L}\p{N}]"), None)
        return values

    def _line_by_line(
        self, lines: _Lines, columns: Sequence[str], schema: Mapping[str, Any]
    ) -> tuple[pl.DataFrame, Problems]:
        read = [(getattr(Row, kind), key) for key, kind in (self.fields[name] for name in columns)]
        rows, problems = [], []
        for number, line in lines:
            if not line.strip():
                continue
            try:
                row = Row(self.file, number, parse_line(self.file, number, line, self.parse or parse_json))
                rows.append((*(method(row, key) for method, key in read), number))
            except BadLine as error:
                problems.append((number, error.problem))
        return pl.DataFrame(rows, schema=schema, orient="row"), problems


@dataclass(frozen=True)
class _Lines:
    """Lines that follow each other in `block`, or some of them.

    Line i is block[starts[i]:ends[i]], with its newline, and has the number numbers[i].
    """

    block: bytes
    starts: np.ndarray
    ends: np.ndarray
    numbers: np.ndarray

    def at(self, mask: np.ndarray) -> _Lines:
        return _Lines(self.block, self.starts[mask], self.ends[mask], self.numbers[mask])

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        for number, start, end in zip(self.numbers.tolist(), self.starts.tolist(), self.ends.tolist(), strict=True):
            yield number, self.block[start:end]


def _column_type(kind: Kind) -> Any:
    return pl.String if kind == "joined_texts" else _TYPES[kind]


def _is_doubtful(column: pl.Expr, kind: Kind) -> pl.Expr:
    """Where the file may hold another kind of value than `column` shows."""
    match kind:
        case "identifier":
            # Whole numbers are identifiers too.
            other = column.str.contains(_NO_TEXT) & ~column.str.contains(r"^-?\d+$")
            return column.is_null() | (column.str.strip_chars() == "") | other | _has_null_character(column)
        case "text":
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
    """Polars reads half a surrogate pair as this."""
    return text.str.contains("\0", literal=True)


def _has_fractions(ids: pl.Series, key: str, block: bytes) -> bool:
    """Whether `block` may hold numbers such as 7.0 as `ids`, which polars shows as "7"."""
    pattern = re.escape(json.dumps(key, ensure_ascii=False).encode()) + rb"\s*:\s*-?\d+[.eE]"
    return ids.str.contains(r"^-?\d+$").any() and re.search(pattern, block) is not None


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


def _pick_lines(block: Callable[[], bytes], starts: np.ndarray, length: int, numbers: np.ndarray, first: int) -> _Lines:
    """The lines `numbers` alone of a block whose lines start at `starts` and have the numbers from `first` on."""
    data, bounds, rows = block(), np.append(starts, length).astype(np.int64), numbers.astype(np.int64) - first
    starts, ends = bounds[rows], bounds[rows + 1]
    joined = b"".join([data[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)])
    lengths = ends - starts
    ends = np.cumsum(lengths)
    return _Lines(joined, ends - lengths, ends, numbers.astype(np.uint32))


def read_rows(path: Path) -> Iterator[Row]:
    """The objects of a file in their order; blank lines are passed over.

    Raises `DataError` for a line that is no JSON object or no UTF-8, and for a .gz file that is cut short.
    """
    number = 0
    for block, _ in read_blocks(path):
        for line in io.BytesIO(block):
            number += 1
            if line.strip():
                yield Row(path, number, parse_line(path, number, line))


def parse_json(line: bytes) -> Any:
    """The value on a line; json says what is wrong, and knows NaN and numbers of any size, where orjson refuses."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        return json.loads(line.decode("utf-8"))


def parse_line(path: Path, number: int, line: bytes, parse: Callable[[bytes], Any] = parse_json) -> dict[str, Any]:
    """The object on a line. Raises `BadLine` for anything else."""
    try:
        values = parse(line)
    except UnicodeDecodeError as error:
        raise BadLine(path, number, f"not UTF-8 at byte {error.start + 1}. Save it as UTF-8.") from error
    except (ValueError, SyntaxError, RecursionError, MemoryError) as error:
        what = getattr(error, "msg", "nested too deeply")
        at = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        kind = "JSON" if parse is parse_json else "line"
        raise BadLine(path, number, f"broken {kind}, {what}{at}: {_excerpt(line)}") from error
    if not isinstance(values, dict):
        raise BadLine(path, number, f"no JSON object but {_show(values)}. Write one {{...}} a line.")
    return values


def _excerpt(line: bytes) -> str:
    return shorten(line.decode("utf-8", "replace").strip(), _EXCERPT_LENGTH)


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return shorten(text if is_encodable(text) else ascii(text), _EXCERPT_LENGTH)
