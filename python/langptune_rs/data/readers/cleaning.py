"""Cleaning of text that was scraped from the web."""

from __future__ import annotations

import re

import numpy as np
import polars as pl

from langptune_rs.data.readers.markup import decode_entities, without_tags

_MAX_PASSES = 8
"""Passes over a text that was escaped several times, or that has tags within tags, before it is taken for rubbish."""

_HIDDEN = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"  # control characters but white space
    r"\xad\u180e\u200b\u2060-\u2064\ufeff\ufff9-\ufffb"  # without width
    r"\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # direction of writing
    r"\ud800-\udfff]+"  # what UTF-8 cannot encode
)
_LONE_JOINER = re.compile(r"(?<![^\x00-\x7f\s])[\u200c\u200d]+|[\u200c\u200d]+(?![^\x00-\x7f\s])")
"""Joiners without a character beyond ASCII on both sides, which scripts and emoji have there."""


def clean(text: str) -> str:
    """`text` without HTML tags, comments, scripts and entities, on one line, with single spaces, without invisible
    characters.

    Invisible are control characters, characters without width, and what UTF-8 cannot encode. Entities are decoded as
    often as they were escaped. What only looks like markup stays, as `markup` says. A clean text stays as it is.
    """
    text = _one_line(text)
    return _without_markup(text) if "&" in text or "<" in text else text


def _without_markup(text: str) -> str:
    """`text` with its entities decoded and its tags removed until there are none."""
    for _ in range(_MAX_PASSES):
        before = text
        if "&" in text:
            text = decode_entities(text)
        if "<" in text:
            text = without_tags(text)
        if text == before:
            return text
        text = _one_line(text)
    return _one_line(text.replace("&", " ").replace("<", " "))


def _one_line(text: str) -> str:
    """`text` with single spaces for all white space, and without invisible characters."""
    text = " ".join(text.split())
    if text.isprintable():
        return text
    return " ".join(_LONE_JOINER.sub("", _HIDDEN.sub("", text)).split())


_MAY_BE_UNCLEAN = r"&[#a-zA-Z]|<[/!?a-zA-Z]|[^ -~]|  |^ | $"
"""Matches every text that `clean` may change."""


def clean_series(texts: pl.Series) -> pl.Series:
    """`clean` for each text."""
    unclean = texts.str.contains(_MAY_BE_UNCLEAN).fill_null(False)
    cleaned = pl.Series([clean(text) for text in texts.filter(unclean).to_list()], dtype=pl.String)
    return replaced(texts, unclean, cleaned)


def clean_lists(lists: pl.Series) -> pl.Series:
    """`clean` for each text of each list, without texts that are empty then. A null becomes an empty list."""
    lists, element = lists.fill_null([]), pl.element()
    unclean = lists.list.eval(element.str.contains(_MAY_BE_UNCLEAN) | (element == "")).list.any()
    cleaned = [[text for text in map(clean, texts) if text] for texts in lists.filter(unclean).to_list()]
    return replaced(lists, unclean, pl.Series(cleaned, dtype=pl.List(pl.String)))


def replaced(values: pl.Series, mask: pl.Series, others: pl.Series) -> pl.Series:
    """`values` with `others`, in their order, where `mask` is true."""
    places = np.arange(len(values))
    places[mask.to_numpy()] = len(values) + np.arange(len(others))
    return pl.concat([values, others.alias(values.name)]).gather(places) if len(others) else values


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can encode `text`. It cannot encode half a surrogate pair, which JSON can write."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
