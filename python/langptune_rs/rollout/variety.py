"""How much a profile repeats itself, and how many profiles of a session differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from langptune_rs.rollout.words import runs_of, words_of


def repeated_share(profile: str, run_length: int = 3) -> float:
    """The share of a profile's runs of `run_length` words that it has written before, in upper or lower case.

    Returns 0.0 (every run once, or less than a run) to nearly 1.0 (one run again and again).
    """
    runs = runs_of(words_of(profile), run_length)
    return 1 - len(set(runs)) / len(runs) if runs else 0.0


def repeated_shares(texts: Sequence[str]) -> NDArray[np.float64]:
    """`repeated_share` of each profile, float64 (len(texts),)."""
    return np.array([repeated_share(text) for text in texts], dtype=np.float64)


def distinct_shares(texts: Sequence[str], num_profiles: int) -> NDArray[np.float64]:
    """How many of a session's profiles differ, over their number: float64 (sessions,), from 1 / num_profiles to 1.

    The `num_profiles` profiles of one session stand next to each other.
    """
    sessions = [texts[i : i + num_profiles] for i in range(0, len(texts), num_profiles)]
    return np.array([len(set(session)) / num_profiles for session in sessions], dtype=np.float64)
