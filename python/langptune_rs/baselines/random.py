"""Random: a shuffled list of all items (section 4.2)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Self

import numpy as np

from langptune_rs.baselines.method import Method, ScoredSessions
from langptune_rs.config import RunConfig
from langptune_rs.config.section import Section
from langptune_rs.data import Dataset, Sessions
from langptune_rs.seeds import generator

_FILE = "random.json"


class Random(Method):
    """Shuffles the items outside each history.

    A target's rank in a shuffled list of m items is uniform over 1..m, so the rank itself is drawn. Each session draws
    from its own stream (seed, session id), so its rank does not depend on which other sessions are ranked.
    """

    name = "Random"
    group = "Simple"

    def __init__(self, num_items: int = 0, seed: int = 0):
        self._num_items, self._seed = num_items, seed

    def fit(self, dataset: Dataset, config: Section, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`; nothing is learned."""
        self._num_items, self._seed = len(dataset.catalog), seed

    def score_targets(self, sessions: Sessions) -> ScoredSessions:
        """See `Method.score_targets`, (N, 1)."""
        ranks = np.empty((len(sessions), 1), dtype=np.int64)
        for i, (session, history) in enumerate(zip(sessions.session_ids, sessions.histories, strict=True)):
            num_left = self._num_items - len(np.unique(history))
            ranks[i] = generator(self._seed, int(session)).integers(1, num_left + 1)
        return ScoredSessions(ranks)

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        (folder / _FILE).write_text(json.dumps({"seed": self._seed}) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`."""
        return cls(len(dataset.catalog), json.loads((folder / _FILE).read_text(encoding="utf-8"))["seed"])

    @classmethod
    def accompanies(cls, config: RunConfig) -> bool:
        """Always: see `Method.accompanies`."""
        return True
