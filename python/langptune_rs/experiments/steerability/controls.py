"""Words that say nothing of taste: what a profile is padded with for a control as long as an edited profile.

An edit adds words to a profile, and any words move its embedding. So the control of an edit is a paraphrase of the
profile: the profile itself, with equally many words in the same place that only say that this is what is known.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

SENTENCES = {
    3: ("That is all.", "So it seems."),
    4: ("This much is known.", "Such is the record."),
    5: ("This is what is known.", "That is how it looks."),
    6: ("This is what is known here.", "That is how it looks now."),
}
"""Sentences without content, by their number of words."""
ASIDES = {
    3: ("so it seems", "as is known"),
    4: ("as it seems now", "so far as known"),
    5: ("to judge by this alone", "as far as one knows"),
    6: ("as far as can be told", "going by what is said here"),
}
"""Asides without content, by their number of words."""
SHORTEST, _LONGEST = min(SENTENCES), max(SENTENCES)


def num_words(text: str) -> int:
    """Words between white space."""
    return len(text.split())


def filler_sentences(length: int, random: np.random.Generator) -> str:
    """Sentences of `length` words in all, at least `SHORTEST`, which say nothing of what anyone likes."""
    return " ".join(SENTENCES[part][random.integers(2)] for part in _parts(length))


def filler_aside(length: int, random: np.random.Generator) -> str:
    """The same as one aside within a sentence."""
    return ", ".join(ASIDES[part][random.integers(2)] for part in _parts(length))


def _parts(length: int) -> Iterator[int]:
    """Lengths from `SHORTEST` to 6 with this sum."""
    left = max(length, SHORTEST)
    while left > _LONGEST:
        part = min(_LONGEST, left - SHORTEST)
        yield part
        left -= part
    yield left
