"""Cleaning of text that was scraped from the web."""

from __future__ import annotations

import html
import re

import numpy as np
import polars as pl

_TAG = re.compile(r"</?[a-zA-Z][^<>]*>")


def clean(text: str) -> str:
    """`text` without HTML tags and entities, on one line, with single spaces and nothing that UTF-8 cannot hold."""
    if "&" in text:
        text = html.unescape(text)
    if "<" in text:
        text = _TAG.sub(" ", text)
    if not text.isascii():
        text = text.encode("utf-8", "ignore").decode("utf-8")
    return " ".join(text.split())


_MAY_BE_UNCLEAN = r"&[#a-zA-Z]|<[/!?a-zA-Z]|[^ -~]|  |^ | $"
"""Where `clean` may change anything."""


def clean_series(texts: pl.Series) -> pl.Series:
    """`clean` for each text."""
    unclean = texts.str.contains(_MAY_BE_UNCLEAN).fill_null(False)
    cleaned = pl.Series([clean(text) for text in texts.filter(unclean).to_list()], dtype=pl.String)
    return _replaced(texts, unclean, cleaned)


def clean_lists(lists: pl.Series) -> pl.Series:
    """`clean` for each text of each list, without those that are empty then; no list is an empty one."""
    lists, element = lists.fill_null([]), pl.element()
    unclean = lists.list.eval(element.str.contains(_MAY_BE_UNCLEAN) | (element == "")).list.any()
    cleaned = [[text for text in map(clean, texts) if text] for texts in lists.filter(unclean).to_list()]
    return _replaced(lists, unclean, pl.Series(cleaned, dtype=pl.List(pl.String)))


def _replaced(values: pl.Series, mask: pl.Series, others: pl.Series) -> pl.Series:
    """`values` with `others`, in their order, where `mask` is true."""
    places = np.arange(len(values))
    places[mask.to_numpy()] = len(values) + np.arange(len(others))
    return pl.concat([values, others.alias(values.name)]).gather(places) if len(others) else values


def is_encodable(text: str) -> bool:
    """Whether UTF-8 can hold `text`: halves of surrogate pairs, which JSON can write, it cannot."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def shorten(text: str, length: int) -> str:
    """`text`, or its first words with an ellipsis where it has more than `length` characters."""
    if len(text) <= length:
        return text
    return (text[:length].rpartition(" ")[0] or text[:length]) + "…"
