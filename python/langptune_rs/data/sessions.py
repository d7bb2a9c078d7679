"""Sessions: a history of items and the item that came next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from langptune_rs.errors import DataError

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Sessions:
    """n sessions of H history items and one target, oldest item first; all items of a session are distinct.

    Sessions of one user stand together, the oldest first.
    """

    session_ids: np.ndarray
    """int64 (n,)"""
    user_ids: list[str]
    histories: np.ndarray
    """int32 (n, H): item indexes"""
    ratings: np.ndarray
    """float32 (n, H): 0 to 5, NaN where the user gave none"""
    reviews: list[list[str | None]]
    """n lists of H"""
    targets: np.ndarray
    """int32 (n,): item indexes"""
    splits: list[str]
    """`train`, `validation` or `test` for each"""

    def __len__(self) -> int:
        return len(self.session_ids)

    def select(self, split: str) -> Sessions:
        """The sessions of one split, in their order. Raises `DataError` for a split that has none."""
        rows = [i for i, own in enumerate(self.splits) if own == split]
        if not rows:
            known = ", ".join(name for name in SPLITS if name in set(self.splits)) or "none"
            raise DataError(f"There are no sessions in the split {split!r}. Splits with sessions: {known}.")
        return self.take(rows)

    def sample(self, limit: int | None, seed: int) -> Sessions:
        """At most `limit` sessions (all without one), drawn without replacement and kept in order."""
        if limit is None or limit >= len(self):
            return self
        return self.take(np.sort(np.random.default_rng(seed).permutation(len(self))[:limit]))

    def take(self, indexes: Sequence[int] | np.ndarray) -> Sessions:
        """The sessions at these places, in the order given."""
        rows = np.asarray(indexes, dtype=np.int64)
        places = rows.tolist()
        return Sessions(
            session_ids=self.session_ids[rows],
            user_ids=[self.user_ids[i] for i in places],
            histories=self.histories[rows],
            ratings=self.ratings[rows],
            reviews=[self.reviews[i] for i in places],
            targets=self.targets[rows],
            splits=[self.splits[i] for i in places],
        )
