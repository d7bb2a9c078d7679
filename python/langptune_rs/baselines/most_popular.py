"""Most Popular (MP): all items by descending popularity (section 4.2)."""

from __future__ import annotations

import numpy as np

from langptune_rs.data import Dataset, Sessions


def rank(dataset: Dataset, sessions: Sessions) -> np.ndarray:
    """Ranks of the targets, int64 (n,); of two equally popular items the one of smaller index comes first.

    Popularity counts the train sessions and the histories of the others (footnote 1), never a held-out target.
    """
    places = np.empty(len(dataset.catalog), dtype=np.int64)
    places[np.argsort(-dataset.popularity, kind="stable")] = np.arange(len(places))
    targets = places[sessions.targets]
    history_places = np.sort(places[sessions.histories], axis=1)
    first_seen = np.diff(history_places, axis=1, prepend=-1) > 0
    ahead = first_seen & (history_places < targets[:, None])
    return 1 + targets - ahead.sum(axis=1)
