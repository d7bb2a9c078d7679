"""JSON lines, plain or .gz, with errors that name the file and the line."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from langptune_rs.data.text import clean, shorten
from langptune_rs.errors import DataError

_EXCERPT_LENGTH = 80


class Row:
    """One object of a file. Its methods read a field and raise `DataError` for one of the wrong kind."""

    __slots__ = ("file", "line", "values")

    def __init__(self, file: Path, line: int, values: dict[str, Any]):
        self.file, self.line, self.values = file, line, values

    def fail(self, problem: str) -> NoReturn:
        raise DataError(f"{self.file}, line {self.line}: {problem}")

    def identifier(self, key: str) -> str:
        """A text or whole number that is not empty."""
        value = self.values.get(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value.strip():
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
        """A list of cleaned texts; a single text is a list of one, null an empty one."""
        value = self.values.get(key)
        if value is None:
            return []
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            self.fail(f"{key} = {_show(value)} is no list of texts.")
        return [text for text in map(clean, values) if text]

    def number(self, key: str) -> float | None:
        """A finite number; none where it is null or absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            self.fail(f"{key} = {_show(value)} is no number. Give a number or null.")
        return float(value)


def read_rows(path: Path) -> Iterator[Row]:
    """The objects of a file in their order; blank lines are passed over.

    Raises `DataError` for a line that is no JSON object or no UTF-8, and for a .gz file that is cut short.
    """
    number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield Row(path, number, _parse(path, number, line))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"{path} is no complete gzip file: reading stopped after line {number} ({error}). Get the file again."
        ) from error


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, line {number}: not UTF-8 at byte {error.start + 1}. Save it as UTF-8.") from error
    except (json.JSONDecodeError, RecursionError) as error:
        what = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
        at = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}, line {number}: broken JSON, {what}{at}: {_excerpt(line)}") from error
    if not isinstance(values, dict):
        raise DataError(f"{path}, line {number}: no JSON object but {_show(values)}. Write one {{...}} a line.")
    return values


def _excerpt(line: bytes) -> str:
    return shorten(line.decode("utf-8", "replace").strip(), _EXCERPT_LENGTH)


def _show(value: Any) -> str:
    return shorten(json.dumps(value, ensure_ascii=False), _EXCERPT_LENGTH)
