"""Lists that were written as text: by Python, numpy, JSON and databases, into one field of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import polars as pl

from langptune_rs.data.readers.missing import is_no_text, is_no_title
from langptune_rs.data.readers.python_values import parse_python

_MAY_BE_LIST = r"^\s*(?:[\[({]|(?:array|set|frozenset|list|tuple)\()"
_CALL = re.compile(r"(?:array|set|frozenset|list|tuple)\((.*?)(?:,\s*dtype=[^()]*)?\)", re.DOTALL)
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_SIDE_BY_SIDE = re.compile(r"""['"]\s+['"]""")
"""Texts as numpy writes them, which Python would join to one."""
_PART = r"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|(-?nan|None|NaN|NA|null|<NA>|NULL%s))\s*(?:,|\s|$)"""
_QUOTED_PART = re.compile(_PART % "", re.DOTALL)
_DATABASE_PART = re.compile(
    _PART.replace(r"(?:,|\s|$)", "(?:,|$)") % r"""|(?!\s)(?:(?<=\w)'(?=\w)|[^"'{},:])++""", re.DOTALL
)
_NO_QUOTES = re.compile(r"""(?:[^\[\]"'{}]|(?<=\w)'(?=\w))+""")
"""What a list without quotes may hold. A quote within a word is an apostrophe: "Children's"."""


def may_be_lists(texts: pl.Series) -> pl.Series:
    """Whether each text may be a list for `listed`."""
    return texts.str.contains(_MAY_BE_LIST).fill_null(False)


def texts_of(text: str, *, bare: bool = False) -> list[str]:
    """The texts that one text stands for: those of a list as `listed` reads it, none for a missing value, or itself."""
    if is_no_text(text):
        return []
    texts = listed(text, bare=bare)
    return [text] if texts is None else texts


def listed(text: str, *, bare: bool = False) -> list[str] | None:
    """The texts of a list that was written as text, without missing ones. None for any other text.

    An object in the list counts by its `name`. With `bare` a list without quotes is one too: "[Action, Drama]",
    "[Drama]", and "{Action}" of a database. A missing value there is any word for one, which no quotes make a text.
    """
    text = text.strip()
    if found := _CALL.fullmatch(text):
        text = found[1].strip() or "[]"
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1]:
        return None
    inner = text[1:-1].strip()
    if not inner:
        return []
    values = _parsed(text)
    if values is None and text[0] != "(":
        values = _parts(inner, _QUOTED_PART)
    if values is None and bare and text[0] == "{":
        values = _parts(inner, _DATABASE_PART)
    if values is None and bare and text[0] == "[" and _NO_QUOTES.fullmatch(inner):
        parts = inner.split("|" if "|" in inner else ",")
        values = [part.strip() for part in parts if not is_no_text(part)]
    return None if values is None else [part for part in values if part.strip() and not is_no_title(part)]


def _parsed(text: str) -> list[str] | None:
    """The texts of a list in JSON or Python. None for any other text."""
    for parse in (json.loads, parse_python):
        if parse is parse_python and _SIDE_BY_SIDE.search(text):
            return None
        try:
            values = parse(text)
            if isinstance(values, set):
                values = sorted(values, key=str)
            texts = list(_texts_in(values)) if isinstance(values, list | tuple) else [None]
        except (ValueError, RecursionError):
            continue
        return None if None in texts else [part for part in texts if part is not None]
    return None


def _texts_in(values: Any) -> Iterator[str | None]:
    """The texts of a list, of the lists in it, and the names of objects in it. None for a value of another kind."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list | tuple):
            yield from _texts_in(value)
        elif isinstance(value, dict) and isinstance(value.get("name"), str):
            yield value["name"]
        elif isinstance(value, int) and not isinstance(value, bool):
            yield str(value)
        elif value is not None and value == value:  # neither null nor NaN
            yield None


def _parts(text: str, pattern: re.Pattern[str]) -> list[str] | None:
    """The parts of "'a' 'b', nan" that are texts. None for a text that is something else."""
    values, place = [], 0
    while place < len(text):
        found = pattern.match(text, place)
        if found is None:
            return None
        quoted = next((part for part in found.groups()[:2] if part is not None), None)
        if quoted is not None:
            values.append(re.sub(r"\\(.)", r"\1", quoted))
        elif not is_no_text(found[3]):
            values.append(found[3].strip())
        place = found.end()
    return values
