"""JSON lines as Python objects, one line at a time, with errors that name the file and the line."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import orjson

from langptune_rs.data.readers.blocks import read_blocks
from langptune_rs.data.readers.cleaning import clean, is_encodable
from langptune_rs.data.readers.listed import texts_of
from langptune_rs.data.readers.missing import is_no_text, is_no_title, is_no_value
from langptune_rs.data.readers.python_values import TOO_DEEP
from langptune_rs.data.readers.values import MAX_EXCERPT_LENGTH
from langptune_rs.data.wording.excerpts import shorten
from langptune_rs.errors import DataError


class BadLine(DataError):
    """A line that cannot be used, and why."""

    def __init__(self, file: Path, line: int, problem: str) -> None:
        super().__init__(f"{file}, line {line}: {problem}")
        self.problem = problem


class Row:
    """One object of a file. It has a method for each `Kind`, which raises `BadLine` for a field of another kind."""

    __slots__ = ("file", "line", "values")

    def __init__(self, file: Path, line: int, values: dict[str, Any]) -> None:
        self.file, self.line, self.values = file, line, values

    def fail(self, problem: str) -> NoReturn:
        """Raise `BadLine` for this row."""
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
        """A cleaned text, which may be empty. None where the field is null, absent or a word for a missing value."""
        text = self._clean_text(key)
        return None if text is None or is_no_text(text) else text

    def title(self, key: str) -> str | None:
        """As `text`, but "None" and other names for nothing are titles."""
        text = self._clean_text(key)
        return None if text is None or is_no_title(text) else text

    def _clean_text(self, key: str) -> str | None:
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self.fail(f"{key} = {_show(value)} is no text. Give a text or null.")
        return clean(value)

    def texts(self, key: str) -> list[str]:
        """Cleaned texts without empty ones, from a list of texts, a list of such lists, a text, or null.

        An only text may be a list that was written as text, or a word for a missing value.
        """
        return self._clean_texts(key, bare=True)

    def _clean_texts(self, key: str, *, bare: bool) -> list[str]:
        value = self.values.get(key)
        if value is None:
            return []
        values = [value] if isinstance(value, str) else value
        if isinstance(values, list):
            values = [text for part in values for text in (part if isinstance(part, list) else [part])]
        if not isinstance(values, list) or not all(isinstance(text, str) for text in values):
            self.fail(f"{key} = {_show(value)} is no list of texts.")
        if len(values) == 1:
            values = texts_of(values[0], bare=bare)
        return [text for text in map(clean, values) if text]

    words = texts

    def joined_texts(self, key: str) -> str | None:
        """What `texts` gives, as one text. None where that is empty."""
        return " ".join(self._clean_texts(key, bare=False)) or None

    def number(self, key: str) -> float | None:
        """A finite number. None where the field is null, NaN, absent, blank or a word for a missing value."""
        value = self.values.get(key)
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return None
        if isinstance(value, str) and (not value.strip() or is_no_value(value)):
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            self.fail(f"{key} = {_show(value)} is no number. Give a number or null.")
        return float(value)

    def price(self, key: str) -> str | None:
        """A text such as "$4.99", or a number as the file has it. None for a text without a letter or digit."""
        if isinstance(self.values.get(key), str):
            text = self._clean_text(key)
            return text if text and any(map(str.isalnum, text)) and not is_no_value(text) else None
        return None if self.number(key) is None else str(self.values[key])


def _is_finite(number: float) -> bool:
    """Whether a float can hold a number, which a whole number of 400 digits is not."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def read_rows(path: Path) -> Iterator[Row]:
    """The objects of a file in their order, without blank lines.

    Raises `DataError` for a line that is not a JSON object in UTF-8, and for a .gz file that is cut short.
    """
    number = 0
    for block, _ in read_blocks(path):
        for line in io.BytesIO(block):
            number += 1
            if line.strip():
                yield Row(path, number, parse_line(path, number, line))


def parse_json(line: bytes) -> Any:
    """The value on a line. What orjson refuses is read by json, which knows NaN and numbers of any size.

    Raises `ValueError` for a line that is not JSON, or is nested too deeply.
    """
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        pass
    try:
        return json.loads(line.decode("utf-8"))
    except RecursionError:
        raise ValueError(TOO_DEEP) from None


def parse_line(path: Path, number: int, line: bytes, parse: Callable[[bytes], Any] = parse_json) -> dict[str, Any]:
    """The object on a line. Raises `BadLine` for a line that is anything else."""
    try:
        values = parse(line)
    except UnicodeDecodeError as error:
        raise BadLine(path, number, f"not UTF-8 at byte {error.start + 1}. Save it as UTF-8.") from error
    except ValueError as error:
        what = getattr(error, "msg", None) or str(error)
        at = f" at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else ""
        kind = "JSON" if parse is parse_json else "line"
        raise BadLine(path, number, f"broken {kind}, {what}{at}: {_excerpt(line)}") from error
    if not isinstance(values, dict):
        raise BadLine(path, number, f"no JSON object but {_show(values)}. Write one {{...}} a line.")
    return values


def _excerpt(line: bytes) -> str:
    return shorten(line.decode("utf-8", "replace").strip(), MAX_EXCERPT_LENGTH)


def _show(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):  # what Python can write and JSON cannot, such as {(1, 2): 3}
        text = str(value)
    return shorten(text if is_encodable(text) else ascii(text), MAX_EXCERPT_LENGTH)
