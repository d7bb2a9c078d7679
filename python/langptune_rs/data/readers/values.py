"""How the values of a field are read and cleaned, whatever the format of its file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import numpy as np
import polars as pl

from langptune_rs.data.readers.bad_lines import Problems
from langptune_rs.data.readers.cleaning import clean_lists, clean_series, replaced
from langptune_rs.data.readers.listed import listed, may_be_lists, texts_of
from langptune_rs.data.readers.missing import (
    are_names_for_nothing,
    are_no_texts,
    are_no_values,
    without_no_texts,
    without_no_titles,
    without_no_values,
)
from langptune_rs.data.wording.excerpts import shorten

Kind = Literal["identifier", "title", "text", "texts", "words", "joined_texts", "number", "price"]
"""`texts` is a list of texts. A text file has it in one field, separated by `LIST_SEPARATOR`, and `words` separated by
spaces. `joined_texts` is a list of texts that becomes one text. A `title` may be "None", as `missing.Titles` says."""

Fields = Mapping[str, tuple[str, Kind]]
"""Column -> its name in the file, and how its values are read."""

ITEM_KINDS: dict[str, Kind] = {
    "item_id": "identifier",
    "title": "title",
    "description": "joined_texts",
    "categories": "texts",
    "price": "price",
    "average_rating": "number",
}
INTERACTION_KINDS: dict[str, Kind] = {
    "user_id": "identifier",
    "item_id": "identifier",
    "rating": "number",
    "timestamp": "number",
    "position": "number",
    "review_text": "text",
}

LIST_SEPARATOR = "|"
MAX_EXCERPT_LENGTH = 80
"""Characters of a line or a value that an error shows."""
SECONDS_BELOW = 1e11
"""A time in seconds is below this, which is the year 5138. In milliseconds every time since 1973 is above it."""


def item_fields(**names: str) -> Fields:
    """The fields of an item from column -> name in the file, each read as its column usually is."""
    return {column: (name, ITEM_KINDS[column]) for column, name in names.items()}


def interaction_fields(**names: str) -> Fields:
    """The fields of an interaction from column -> name in the file, each read as its column usually is."""
    return {column: (name, INTERACTION_KINDS[column]) for column, name in names.items()}


def in_seconds(timestamp: pl.Expr) -> pl.Expr:
    """Seconds since 1970, from seconds, milliseconds, microseconds or nanoseconds. The size of a time says which."""
    size = timestamp.abs()
    return (
        pl.when(size < SECONDS_BELOW)
        .then(timestamp)
        .when(size < SECONDS_BELOW * 1e3)
        .then(timestamp / 1e3)
        .when(size < SECONDS_BELOW * 1e6)
        .then(timestamp / 1e6)
        .otherwise(timestamp / 1e9)
    )


def clean_values(values: pl.Series, kind: Kind) -> pl.Series:
    """Clean the values of a field: texts, or lists of texts for `texts`, `words` and `joined_texts`."""
    match kind:
        case "text":
            return without_no_texts(clean_series(values))
        case "title":
            return without_no_titles(clean_series(values))
        case "price":
            prices = without_no_values(clean_series(values))
            return prices.set(~prices.str.contains(r"[\p{L}\p{N}]"), None)
        case "texts" | "words":
            return clean_lists(_unpacked(values, bare=True))
        case "joined_texts":
            joined = clean_lists(_unpacked(values)).list.join(" ")
            return joined.set(joined == "", None)
    return values


def without_missing_titles(rows: pl.DataFrame, fields: Fields, are_meant: Callable[[str], bool]) -> pl.DataFrame:
    """Null for each title that is a name for nothing, unless `are_meant(column)`, which is asked where there is one."""
    missing = [
        name
        for name, (_, kind) in fields.items()
        if kind == "title" and name in rows.columns and are_names_for_nothing(rows[name]).any() and not are_meant(name)
    ]
    return rows.with_columns(rows[name].set(are_names_for_nothing(rows[name]), None) for name in missing)


def finish(rows: pl.DataFrame, fields: Fields, are_meant: Callable[[str], bool]) -> tuple[pl.DataFrame, Problems]:
    """Turn fields as a table holds them into values of their columns, and return what is wrong with the other rows.

    A field with nothing but blanks is null, and so is one with a word for a missing value. `are_meant` says of a column
    of titles whether "None" is a title there. Rows without an id, and rows with a number that cannot be read, are left
    out.
    """
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
            rows = rows.with_columns(numbers.fill_nan(None))
            wrong = numbers.is_infinite().fill_null(False)
            if texts.dtype == pl.String:
                wrong |= numbers.is_null() & ~_is_blank(texts) & ~are_no_values(texts)
            problem = "{key} = {value} is no number. Give a number, or leave it out."
        for i in wrong.arg_true().to_list() if wrong.any() else ():
            value = shorten(repr(str(texts[i])), MAX_EXCERPT_LENGTH)
            problems.setdefault(rows["line"][i], problem.format(key=key, value=value))
        is_wrong |= wrong.to_numpy()
    if problems:
        rows = rows.filter(~pl.Series(is_wrong))
    rows = without_missing_titles(rows, fields, are_meant)
    cleaned = (clean_values(_as_kind(rows[name], kind), kind) for name, (_, kind) in fields.items())
    return rows.with_columns(cleaned), problems


def _as_kind(values: pl.Series, kind: Kind) -> pl.Series:
    """Texts without blank ones, or lists of texts."""
    match kind:
        case "text" | "title" | "price":
            return values.set(values.str.strip_chars() == "", None)
        case "texts":
            return _lists(values, LIST_SEPARATOR)
        case "words":
            return _lists(values, " ")
        case "joined_texts":
            return _lists(values, None)
    return values


def _lists(values: pl.Series, separator: str | None) -> pl.Series:
    """Lists without their nulls. Texts are split at `separator`, or are lists of one without it.

    A text that is a list already, as Python or a database writes one, is split as such.
    """
    if values.dtype == pl.List(pl.String):
        return values.list.drop_nulls()
    values = values.cast(pl.String)
    if separator is not None:
        maybe = may_be_lists(values)
        as_list = _words if separator == " " else partial(listed, bare=True)
        known = [as_list(text) for text in values.filter(maybe).to_list()]
        parts = values.str.split(separator)
        if known:
            split = parts.filter(maybe).to_list()
            chosen = [own if one is None else one for one, own in zip(known, split, strict=True)]
            parts = replaced(parts, maybe, pl.Series(chosen, dtype=pl.List(pl.String)))
        return parts
    return pl.select(pl.when(values.is_not_null()).then(pl.concat_list(values))).to_series().alias(values.name)


def _words(text: str) -> list[str] | None:
    """As `listed`, for words with blanks between them: a list without quotes and commas is "[Action Drama]"."""
    found = listed(text, bare=True)
    is_bare = found is not None and len(found) == 1 and listed(text) is None and text.lstrip()[0] == "["
    return found[0].split() if is_bare and found else found


def _unpacked(lists: pl.Series, *, bare: bool = False) -> pl.Series:
    """Lists in which a list of one text is what this text stands for: see `listed.texts_of`."""
    texts = lists.list.first()
    packed = (lists.list.len() == 1).fill_null(False) & (may_be_lists(texts) | are_no_texts(texts))
    if not packed.any():
        return lists
    unpacked = [texts_of(text, bare=bare) for text in texts.filter(packed).to_list()]
    return replaced(lists, packed, pl.Series(unpacked, dtype=pl.List(pl.String)))


def _is_blank(texts: pl.Series) -> pl.Series:
    """Whether each is null or has no character but blanks."""
    may_be_blank = ((texts < "!") | (texts > "~")).fill_null(True)  # by the first character
    return (texts.str.strip_chars() == "").fill_null(True) if may_be_blank.any() else may_be_blank


def _as_number(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Float64:
        return values
    return values.str.strip_chars().cast(pl.Float64, strict=False)
