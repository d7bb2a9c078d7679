"""How much of a profile is copied from the history."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langptune_rs.data import Catalog, Sessions
from langptune_rs.rollout.words import runs_of, words_of


def copied_share(profile: str, history: str, run_length: int = 3) -> float:
    """The share of a profile's words that lie in a run of `run_length` or more words copied word for word.

    A profile that only repeats titles ranks well and says nothing about the user; this number shows it.

    Returns 0.0 (nothing copied) to 1.0 (every word); 0.0 for a profile of fewer than `run_length` words.
    """
    words = words_of(profile)
    runs = set(runs_of(words_of(history), run_length))
    copied = [False] * len(words)
    for i, run in enumerate(runs_of(words, run_length)):
        if run in runs:
            copied[i : i + run_length] = [True] * run_length
    return sum(copied) / len(words) if words else 0.0


def copied_from(texts: Sequence[str], sources: Sequence[str]) -> np.ndarray:
    """`copied_share` of each text with its source, float64 (len(texts),).

    The texts of one source stand next to each other, equally many for each.
    """
    of_each = len(texts) // max(1, len(sources))
    return np.array([copied_share(text, sources[i // of_each]) for i, text in enumerate(texts)], dtype=np.float64)


def titles_of(sessions: Sessions, catalog: Catalog) -> list[str]:
    """The titles of each session's history, one a line."""
    return ["\n".join(catalog.titles[item] for item in history) for history in sessions.histories]


def copied_shares(texts: Sequence[str], sessions: Sessions, catalog: Catalog) -> np.ndarray:
    """`copied_share` of each profile with the titles of its session's history, float64 (len(texts),).

    The profiles of one session stand next to each other, equally many for each.
    """
    return copied_from(texts, titles_of(sessions, catalog))
