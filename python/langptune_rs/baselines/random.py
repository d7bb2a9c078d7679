"""Random: a shuffled list of all items (section 4.2)."""

from __future__ import annotations

import numpy as np

from langptune_rs.data import Dataset, Sessions


def rank(dataset: Dataset, sessions: Sessions, *, seed: int) -> np.ndarray:
    """Ranks of the targets, int64 (n,), when the items outside each history are shuffled.

    A target's place in a shuffled list of m items is uniform over 1..m, so it is drawn as such. Each session draws
    from its own stream (seed, session id): its rank does not depend on which other sessions are ranked.
    """
    ranks = np.empty(len(sessions), dtype=np.int64)
    for i, (session, history) in enumerate(zip(sessions.session_ids, sessions.histories, strict=True)):
        num_left = len(dataset.catalog) - len(np.unique(history))
        ranks[i] = np.random.default_rng([seed, int(session)]).integers(1, num_left + 1)
    return ranks
