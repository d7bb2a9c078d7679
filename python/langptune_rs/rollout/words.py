"""The words of a profile and their runs, by which copies and repetitions are found."""

from __future__ import annotations

import re
from collections.abc import Sequence

_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case."""
    return _WORD.findall(text.lower())


def runs_of(words: Sequence[str], length: int) -> list[tuple[str, ...]]:
    """Each run of `length` words, in order; none in a shorter text."""
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
