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


def copied_shares(texts: Sequence[str], sessions: Sessions, catalog: Catalog) -> np.ndarray:
    """`copied_share` of each profile with the titles of its session's history, float64 (len(texts),).

    The profiles of one session stand next to each other, equally many for each.
    """
    titles = ["\n".join(catalog.titles[item] for item in history) for history in sessions.histories]
    num_profiles = len(texts) // max(1, len(sessions))
    return np.array([copied_share(text, titles[i // num_profiles]) for i, text in enumerate(texts)], dtype=np.float64)
