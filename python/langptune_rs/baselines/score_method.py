"""Methods that score all items for a session, by no dot product of short vectors."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from langptune_rs import _core
from langptune_rs.arrays import rows_of
from langptune_rs.baselines.method import Method, ScoredSessions
from langptune_rs.data import Sessions
from langptune_rs.errors import InputError

SCORES_PER_BLOCK = 1 << 22
"""Scores in memory at once: 16 MiB in float32."""


class ScoreMethod(Method):
    """A method that gives a score for every item from a history; the largest ranks first."""

    @property
    @abstractmethod
    def num_items(self) -> int:
        """Items of the catalog."""

    @abstractmethod
    def scores(self, histories: NDArray[np.int32]) -> NDArray[np.float32]:
        """Scores of all items, finite, float32 (B, num_items), from histories (B, H), oldest item first.

        The scores of a history do not depend on the other histories.
        """

    def score_targets(self, sessions: Sessions) -> ScoredSessions:
        """See `Method.score_targets`, (N, 1). Between two items with the same score the smaller index ranks first.

        Only a block of sessions is scored at a time, so that no matrix of all sessions and items is made. The scores
        are of any scale, so no log-probabilities are made of them.

        Raises `InputError` for an item that the catalog lacks, and for a target that its history holds.
        """
        check_sessions(sessions, self.num_items)
        size = max(1, SCORES_PER_BLOCK // self.num_items)
        ranks = np.empty((len(sessions), 1), dtype=np.int64)
        for start in range(0, len(sessions), size):
            block = slice(start, start + size)
            histories = sessions.histories[block]
            ranks[block, 0] = ranks_of(self.scores(histories), sessions.targets[block], histories)
        return ScoredSessions(ranks)


def ranks_of(
    scores: NDArray[np.float32], targets: NDArray[np.int32], histories: NDArray[np.int32]
) -> NDArray[np.int64]:
    """1-based rank of each target among the items outside its history, int64 (B,), by (-score, item index).

    `scores` is (B, num_items), `targets` (B,) and `histories` (B, H). This is the order of `ItemIndex.rank`.
    """
    assert np.isfinite(scores).all(), "no item can be placed by NaN or infinity"
    rows = np.arange(len(targets))
    of_target = scores[rows, targets][:, None]
    is_before = np.arange(scores.shape[1]) < targets[:, None]
    is_ahead = (scores > of_target) | (is_before & (scores == of_target))
    is_ahead[rows[:, None], histories] = False
    ranks: NDArray[np.int64] = 1 + is_ahead.sum(axis=1, dtype=np.int64)
    return ranks


def check_sessions(sessions: Sessions, num_items: int) -> None:
    """Raise `InputError` for an item that the catalog lacks, and for a target that its history holds."""
    rows = [rows_of(items, name) for items, name in ((sessions.targets, "targets"), (sessions.histories, "exclude"))]
    targets, histories = ((row.offsets, row.values) for row in rows)
    _core.check_ids(targets, histories, num_items)
    in_history = (sessions.histories == sessions.targets[:, None]).any(axis=1)
    if in_history.any():
        row = int(in_history.argmax())
        raise InputError(
            f"row {row}: the target {sessions.targets[row]} is in the history, whose items are not ranked. "
            "Leave the session out, or give the item that came after its history."
        )
