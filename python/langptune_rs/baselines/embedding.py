"""EMB-0: the untrained embedder reads the history itself, with no profile in between (section 4.2)."""

from __future__ import annotations

import numpy as np

from langptune_rs.data import Dataset, Sessions
from langptune_rs.rollout.reward import Recommender


def rank(dataset: Dataset, sessions: Sessions, *, recommender: Recommender) -> np.ndarray:
    """Ranks of the targets, int64 (n,), by the similarity of each item's text to the history's text.

    The embedder cuts a history that is longer than its limit, newest items last.
    """
    texts = [dataset.session_text(sessions, i) for i in range(len(sessions))]
    return recommender.ranks(texts, sessions.targets, sessions.histories)
