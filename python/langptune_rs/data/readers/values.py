"""How the values of a field are read and cleaned, whatever the format of its file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import polars as pl

from langptune_rs.data.readers.bad_lines import Problems
from langptune_rs.data.readers.cleaning import clean_lists, clean_series
from langptune_rs.data.wording.excerpts import shorten

Kind = Literal["identifier", "text", "texts", "words", "joined_texts", "number", "price"]
"""`texts` is a list of texts. A text file has it in one field, separated by `LIST_SEPARATOR`, and `words` separated by
spaces. `joined_texts` is a list of texts that becomes one text."""

Fields = Mapping[str, tuple[str, Kind]]
"""Column -> its name in the file, and how its values are read."""

ITEM_KINDS: dict[str, Kind] = {
    "item_id": "identifier",
    "title": "text",
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
            return clean_series(values)
        case "price":
            prices = clean_series(values)
            return prices.set(~prices.str.contains(r"[\p{L}\p{N}]"), None)
        case "texts" | "words":
            return clean_lists(values)
        case "joined_texts":
            joined = clean_lists(values).list.join(" ")
            return joined.set(joined == "", None)
    return values


def finish(rows: pl.DataFrame, fields: Fields) -> tuple[pl.DataFrame, Problems]:
    """Turn fields as a table holds them into values of their columns, and return what is wrong with the other rows.

    A field with nothing but blanks is null. Rows without an id, and rows with a number that cannot be read, are left
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
            rows = rows.with_columns(numbers)
            wrong = ~numbers.is_finite().fill_null(True)
            if texts.dtype == pl.String:
                wrong |= numbers.is_null() & ~_is_blank(texts)
            problem = "{key} = {value} is no number. Give a number, or leave it out."
        for i in wrong.arg_true().to_list() if wrong.any() else ():
            value = shorten(repr(str(texts[i])), MAX_EXCERPT_LENGTH)
            problems.setdefault(rows["line"][i], problem.format(key=key, value=value))
        is_wrong |= wrong.to_numpy()
    if problems:
        rows = rows.filter(~pl.Series(is_wrong))
    cleaned = (clean_values(_as_kind(rows[name], kind), kind) for name, (_, kind) in fields.items())
    return rows.with_columns(cleaned), problems


def _as_kind(values: pl.Series, kind: Kind) -> pl.Series:
    """Texts without blank ones, or lists of texts."""
    match kind:
        case "text" | "price":
            return values.set(values.str.strip_chars() == "", None)
        case "texts":
            return _lists(values, LIST_SEPARATOR)
        case "words":
            return _lists(values, " ")
        case "joined_texts":
            return _lists(values, None)
    return values


def _lists(values: pl.Series, separator: str | None) -> pl.Series:
    """Lists without their nulls. Texts are split at `separator`, or are lists of one without it."""
    if values.dtype == pl.List(pl.String):
        return values.list.drop_nulls()
    values = values.cast(pl.String)
    if separator is not None:
        return values.str.split(separator)
    return pl.select(pl.when(values.is_not_null()).then(pl.concat_list(values))).to_series().alias(values.name)


def _is_blank(texts: pl.Series) -> pl.Series:
    """Whether each is null or has no character but blanks."""
    may_be_blank = ((texts < "!") | (texts > "~")).fill_null(True)  # by the first character
    return (texts.str.strip_chars() == "").fill_null(True) if may_be_blank.any() else may_be_blank


def _as_number(values: pl.Series) -> pl.Series:
    if values.dtype == pl.Float64:
        return values
    return values.str.strip_chars().cast(pl.Float64, strict=False)
