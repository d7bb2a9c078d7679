"""Sessions: a history of items and the item that came next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from langptune_rs.data.store.columns import Labels, TextColumn, TextLists
from langptune_rs.errors import DataError
from langptune_rs.seeds import generator

if TYPE_CHECKING:
    import torch

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True, eq=False)
class Sessions:
    """n sessions of H history items, oldest first, and one target. All items of a session are distinct.

    The sessions of one user follow each other, oldest first. The sessions of a data set are views of its mapped files:
    the arrays are read-only, and a text is read when it is asked for. Lists are accepted for the columns.
    """

    session_ids: np.ndarray
    """int64 (n,)"""
    user_ids: TextColumn
    """n ids"""
    histories: np.ndarray
    """int32 (n, H): item indexes"""
    ratings: np.ndarray
    """float32 (n, H): 0 to 5, NaN where the user gave none"""
    reviews: TextLists
    """n lists of H texts, None where the user wrote none"""
    targets: np.ndarray
    """int32 (n,): item indexes"""
    splits: Labels
    """`train`, `validation` or `test` for each session"""

    def __post_init__(self) -> None:
        columns: dict[str, tuple[type, Callable[[Any], object]]] = {
            "user_ids": (TextColumn, TextColumn),
            "reviews": (TextLists, TextLists),
            "splits": (Labels, partial(Labels.of, SPLITS)),
        }
        for name, (column, make) in columns.items():
            given = getattr(self, name)
            if not isinstance(given, column):
                object.__setattr__(self, name, make(given))

    def __len__(self) -> int:
        return len(self.session_ids)

    def select(self, split: str) -> Sessions:
        """The sessions of one split, in their order. Raises `DataError` for a split that has none."""
        rows = np.flatnonzero(self.splits.mask(split))
        if not rows.size:
            known = ", ".join(name for name in SPLITS if self.splits.count(name)) or "none"
            raise DataError(f"There are no sessions in the split {split!r}. Splits with sessions: {known}.")
        return self.take(rows)

    def sample(self, limit: int | None, seed: int) -> Sessions:
        """At most `limit` sessions, drawn without replacement and kept in order. Without a limit all of them."""
        if limit is None or limit >= len(self):
            return self
        return self.take(np.sort(generator(seed).permutation(len(self))[:limit]))

    def take(self, indexes: Sequence[int] | np.ndarray) -> Sessions:
        """The sessions at these places, in the order given. Numbers are copied, texts are not."""
        rows = np.asarray(indexes, dtype=np.int64)
        return Sessions(
            session_ids=self.session_ids[rows],
            user_ids=self.user_ids.take(rows),
            histories=self.histories[rows],
            ratings=self.ratings[rows],
            reviews=self.reviews.take(rows),
            targets=self.targets[rows],
            splits=self.splits.take(rows),
        )

    def to_numpy(self) -> dict[str, np.ndarray]:
        """All numbers by name, not copied: session_ids, histories, ratings, targets and splits.

        The splits are uint8 (n,), places in `SPLITS`. The other arrays are those of this class.
        """
        return {
            "session_ids": self.session_ids,
            "histories": self.histories,
            "ratings": self.ratings,
            "targets": self.targets,
            "splits": self.splits.codes,
        }

    def to_torch(self) -> dict[str, torch.Tensor]:
        """The arrays of `to_numpy` as tensors of the same types and shapes.

        A tensor shares the memory of a mapped file, or of an array that can be written. Only other read-only memory is
        copied. Writing to a tensor over a mapped file changes what this process sees, and never the file.
        """
        import torch

        return {name: torch.from_numpy(_writable(array)) for name, array in self.to_numpy().items()}


def _writable(array: np.ndarray) -> np.ndarray:
    """A view of `array` if its memory can be written, else a copy."""
    view = array.view()
    try:
        view.flags.writeable = True
    except ValueError:
        return array.copy()
    return view
