"""ItemKNN: the items that the same users chose as those of the history (Sarwar et al., WWW 2001)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveInt
from scipy.sparse import csr_array, load_npz, save_npz

from langptune_rs.baselines.interactions import histories_as_rows, user_items
from langptune_rs.baselines.score_method import ScoreMethod
from langptune_rs.config.section import Section
from langptune_rs.data import Dataset

_FILE = "similarities.npz"
ITEMS_PER_BLOCK = 512
"""Items whose common users are counted at once."""


class ItemKnnConfig(Section):
    """The neighbours of items. The paper has no ItemKNN, so that the defaults are none of its."""

    neighbours: PositiveInt = 100
    """k: at most so many of the most similar items are kept for each item. Fewer are kept for an item that shares its
    users with fewer. The default is in the middle of what Ferrari Dacrema et al. (RecSys 2019) search, 5 to 1,000."""
    shrinkage: NonNegativeFloat = 10.0
    """Is added to the denominator of the cosine, so that a similarity of few common users counts less. 0 is the plain
    cosine. Ferrari Dacrema et al. search 0 to 1,000."""


class ItemKnn(ScoreMethod):
    """An item's score is the sum of its similarities to those items of the history that are its neighbours.

    The neighbours are those of the item that is scored, as with Sarwar et al. and in RecBole. Deshpande and Karypis
    (2004) keep those of the items of the history instead, another model wherever an item has more than k neighbours.
    """

    name = "ItemKNN"
    uses_seed = False
    learns_from_histories = True
    Config = ItemKnnConfig
    grid: ClassVar[Mapping[str, Sequence[object]]] = {"neighbours": (100, 500, 1000), "shrinkage": (0.0, 10.0)}

    def __init__(self, similarities: csr_array | None = None):
        """`similarities` is what `nearest_neighbours` returns."""
        self._similarities = similarities

    def fit(self, dataset: Dataset, config: ItemKnnConfig, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`; nothing is random."""
        self._similarities = nearest_neighbours(user_items(dataset), config.neighbours, config.shrinkage)

    @property
    def similarities(self) -> csr_array:
        """The similarities of each item, a row, to its neighbours."""
        assert self._similarities is not None, "fit or open comes first"
        return self._similarities

    @property
    def num_items(self) -> int:
        """See `ScoreMethod.num_items`."""
        return int(self.similarities.shape[0])

    def scores(self, histories: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `ScoreMethod.scores`; an item without a neighbour in the history scores 0."""
        scores: NDArray[np.float32] = (histories_as_rows(histories, self.num_items) @ self.similarities.T).toarray()
        return scores

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        save_npz(folder / _FILE, self.similarities)

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`."""
        return cls(load_npz(folder / _FILE))


def nearest_neighbours(chosen: csr_array, neighbours: int, shrinkage: float) -> csr_array:
    """Cosine similarity of each item to the most similar others, sparse float32 (n_items, n_items), a row for an item.

    `chosen` is (n_users, n_items) with 1 where a user chose an item, and n_i is how many users chose i. The similarity
    of i and j is n_ij / (sqrt(n_i n_j) + shrinkage), where n_ij users chose both. A row keeps the `neighbours` largest
    that are above 0, and of two equal ones that of the smaller item index. No item is its own neighbour.
    """
    chosen = chosen.astype(np.float64)
    of_item = chosen.T.tocsr()
    num_users = of_item.sum(axis=1)
    kept = [
        _largest(common, items, np.sqrt(num_users[item] * num_users[items]) + shrinkage, neighbours)
        for item, items, common in _common_users(of_item, chosen)
    ]
    offsets = np.cumsum([0, *(len(items) for items, _ in kept)])
    columns, values = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return csr_array((values.astype(np.float32), columns, offsets), shape=(len(kept), len(kept)))


def _common_users(
    of_item: csr_array, chosen: csr_array
) -> Iterator[tuple[int, NDArray[np.integer], NDArray[np.float64]]]:
    """(i, items, n_ij of these items) for each item i: the other items with common users, in ascending order."""
    for start in range(0, of_item.shape[0], ITEMS_PER_BLOCK):
        counts = (of_item[start : start + ITEMS_PER_BLOCK] @ chosen).tocsr()
        counts.sort_indices()
        for row, (low, high) in enumerate(zip(counts.indptr[:-1], counts.indptr[1:], strict=True)):
            items, common = counts.indices[low:high], counts.data[low:high]
            others = items != start + row
            yield start + row, items[others], common[others]


def _largest(
    common: NDArray[np.float64], items: NDArray[np.integer], denominators: NDArray[np.float64], limit: int
) -> tuple[NDArray[np.integer], NDArray[np.float64]]:
    """(items, similarities) of the `limit` largest similarities common / denominators, items in ascending order."""
    similarities = common / denominators
    kept = np.sort(np.argsort(-similarities, kind="stable")[:limit])
    return items[kept], similarities[kept]
