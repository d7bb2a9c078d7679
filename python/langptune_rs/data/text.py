"""Cleaning of text that was scraped from the web."""

from __future__ import annotations

import html
import re

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


def shorten(text: str, length: int) -> str:
    """`text`, or its first words with an ellipsis where it has more than `length` characters."""
    if len(text) <= length:
        return text
    return (text[:length].rpartition(" ")[0] or text[:length]) + "…"
