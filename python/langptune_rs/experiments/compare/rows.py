"""A row of the table, whether its method was fitted here or comes from runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langptune_rs.baselines.method import Decoding

GROUPS = ("Simple", "ID-based", "Text-based", "Profile-based")
"""The groups of methods, nearly as in section 4.2 of the paper, whose LLM-based ones are Text-based here.

BERT4Rec, which the paper counts among those, reads no text, and stands with the other methods of item ids.
"""

ACROSS = "across groups"
"""The family of the tests of all pairs of methods of different groups."""


@dataclass(frozen=True)
class Guards:
    """What the profiles of a method rest on, for each of n sessions and averaged over seeds: see `guards.py`."""

    scrubbed: NDArray[np.float64]
    """NDCG@k without the words of the target's title, (n,)."""
    changed: NDArray[np.float64]
    """The share of profiles that had such words, (n,)."""
    copied: NDArray[np.float64]
    """The share of words in runs of three or more that are copied from titles of the history, (n,)."""
    swapped: NDArray[np.float64] | None
    """NDCG@k by the profiles of another user, (n,); None where one user has more than half of the sessions."""
    memorised: NDArray[np.float64]
    """NDCG@k by the profile that was written without a history, (n,)."""
    without_history: Sequence[str]
    """That profile, for each seed."""
    titles: NDArray[np.float64]
    """NDCG@k by the titles of the history in place of a profile, (n,)."""


@dataclass(frozen=True)
class Compared:
    """A row of the table: a method in one decoding, its scores averaged over seeds, and what it cost."""

    method: str
    group: str
    decoding: Decoding | None
    """How its profiles were written; None for a method that writes none."""
    seeds: tuple[int, ...]
    scores: Mapping[str, NDArray[np.float64]]
    """{metric: (n_sessions,)}, the mean over seeds."""
    seed_means: Mapping[str, Sequence[float]]
    """{metric: the mean of each seed}"""
    settings: Mapping[str, Any]
    costs: Mapping[str, float | None]
    """"fit_seconds" and "milliseconds" a recommendation, means over seeds; "peak_memory" in bytes, the largest."""
    failures: Mapping[int, str]
    """Why a seed is missing."""
    unfinished: Mapping[int, str] = field(default_factory=dict)
    """What the fit of a seed left unfinished, a sentence for each of which there is something to say."""
    made: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    """The "machine" and "versions" of each seed's fit, None where an earlier version noted neither, and whether it
    "notes_unfinished". Empty for runs."""
    tuning: Mapping[str, Any] | None = None
    """How its settings were chosen, as `tuning.json` has it; None where they were given."""
    guards: Guards | None = None
    """What its profiles rest on; None for a method without profiles, or where nobody asked."""
    objective: str = ""
    """What its policy learned by, such as "grpo", where that is not RLSO (`rlso.objective`)."""

    @property
    def name(self) -> str:
        """The method's name, with what its policy learned by if not by RLSO, and whether profiles are sampled."""
        name = named(self.method, self.objective)
        return f"{name}, sampled" if self.decoding == "sampled" else name


def named(method: str, objective: str) -> str:
    """A method whose policy learned by an objective; "" is RLSO.

    >>> named("LangPTune", "grpo")
    'LangPTune by GRPO'
    """
    return f"{method} by {objective.upper()}" if objective else method


@dataclass(frozen=True)
class LeftOut:
    """A method of "all" that has no row, and why."""

    method: str
    reason: str
