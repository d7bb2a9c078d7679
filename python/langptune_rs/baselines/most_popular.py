"""Most Popular (MP): all items by descending popularity (section 4.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from langptune_rs.baselines.method import VectorMethod
from langptune_rs.config import RunConfig
from langptune_rs.config.section import Section
from langptune_rs.data import Dataset, Sessions

_FILE = "popularity.npy"


class MostPopular(VectorMethod):
    """Each item's vector is its popularity, one number, and every session's vector is 1.

    Popularity counts the train sessions and the histories of the others (footnote 1), never a held-out target.
    """

    name = "MP"
    group = "Simple"
    uses_seed = False
    learns_from_histories = True

    def __init__(self, popularity: NDArray[np.int64] | None = None):
        self._popularity = popularity

    def fit(self, dataset: Dataset, config: Section, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`; nothing is random."""
        self._popularity = dataset.popularity

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """Interactions of each item, float32 (n_items, 1), exact up to 2**24 of them."""
        assert self._popularity is not None, "fit or open comes first"
        return self._popularity.astype(np.float32)[:, None]

    def session_vectors(self, sessions: Sessions) -> NDArray[np.float32]:
        """Ones, float32 (N, 1)."""
        return np.ones((len(sessions), 1), dtype=np.float32)

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        assert self._popularity is not None, "fit or open comes first"
        np.save(folder / _FILE, self._popularity, allow_pickle=False)

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`."""
        return cls(np.load(folder / _FILE, allow_pickle=False))

    @classmethod
    def accompanies(cls, config: RunConfig) -> bool:
        """Always: see `Method.accompanies`."""
        return True
