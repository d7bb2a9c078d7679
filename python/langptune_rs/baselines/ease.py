"""EASE: linear regression of every item on all others, in closed form (Steck, WWW 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import PositiveFloat, PositiveInt
from scipy.linalg.lapack import dpotrf, dpotri
from scipy.sparse import csr_array

from langptune_rs.baselines.interactions import histories_as_rows, user_items
from langptune_rs.baselines.score_method import ScoreMethod
from langptune_rs.config.section import Section
from langptune_rs.data import Dataset
from langptune_rs.errors import DataError

_FILE = "weights.npy"
ITEMS_PER_BLOCK = 512
"""Items whose common users are counted at once."""


class EaseConfig(Section):
    """The regression. The paper has no EASE, so that the defaults are none of its."""

    l2: PositiveFloat = 500.0
    """lambda: the weight of the squared coefficients. Steck's own for MovieLens-20M; 1,000 for Netflix and 200 for the
    Million Song data."""
    max_items: PositiveInt = 30_000
    """A larger catalog is refused: the solution takes 12 bytes times n_items squared, 11 GB for 30,000 items, and its
    time grows with the cube of n_items."""


class Ease(ScoreMethod):
    """An item's score is the sum of its coefficients for the items of the history."""

    name = "EASE"
    uses_seed = False
    learns_from_histories = True
    Config = EaseConfig
    grid: ClassVar[Mapping[str, Sequence[object]]] = {"l2": (10.0, 50.0, 200.0, 500.0, 1000.0, 3000.0)}

    def __init__(self, weights: NDArray[np.float32] | None = None):
        """`weights` is what `coefficients` returns."""
        self._weights = weights

    def fit(self, dataset: Dataset, config: EaseConfig, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`; nothing is random.

        Raises `DataError` for a catalog above `config.max_items`, and what `coefficients` raises.
        """
        if len(dataset.catalog) > config.max_items:
            raise DataError(
                f"EASE solves for one number for each pair of items, and the catalog has {len(dataset.catalog)} items, "
                f"more than max_items = {config.max_items}. Raise max_items where there are "
                f"{12 * len(dataset.catalog) ** 2 / 1e9:.0f} GB of memory, or leave EASE out."
            )
        self._weights = coefficients(user_items(dataset), config.l2)

    @property
    def weights(self) -> NDArray[np.float32]:
        """The coefficients."""
        assert self._weights is not None, "fit or open comes first"
        return self._weights

    @property
    def num_items(self) -> int:
        """See `ScoreMethod.num_items`."""
        return len(self.weights)

    def scores(self, histories: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `ScoreMethod.scores`."""
        scores: NDArray[np.float32] = histories_as_rows(histories, self.num_items) @ self.weights
        return scores

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        np.save(folder / _FILE, self.weights, allow_pickle=False)

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`."""
        return cls(np.load(folder / _FILE, allow_pickle=False))


def coefficients(chosen: csr_array, l2: float) -> NDArray[np.float32]:
    """B of min ||X - XB||^2 + l2 ||B||^2 with a zero diagonal, float32 (n_items, n_items).

    `chosen` is X, (n_users, n_items) with 1 where a user chose an item. With P = (X'X + l2 I)^-1, B_ij is -P_ij / P_jj
    outside the diagonal (Eq. 8 of Steck 2019). P is computed in float64.

    Raises `DataError` when `l2` is so small that X'X + l2 I cannot be inverted.
    """
    gram = _gram(chosen.astype(np.float64))
    gram.flat[:: len(gram) + 1] += l2
    factor, failed = dpotrf(gram, lower=True, overwrite_a=True)
    if failed:
        raise DataError(
            f"EASE cannot invert the counts of common users with l2 = {l2}: that is too small beside them, where the "
            "choices of one item follow from those of others. Pass a larger l2, such as 10."
        )
    inverse, failed = dpotri(factor, lower=True, overwrite_c=True)
    assert not failed, "a factor with a positive diagonal has an inverse"
    for item in range(len(inverse)):  # LAPACK fills one half
        inverse[item, item + 1 :] = inverse[item + 1 :, item]
    inverse /= -inverse.diagonal()
    weights: NDArray[np.float32] = inverse.astype(np.float32, order="C")
    np.fill_diagonal(weights, 0.0)
    return weights


def _gram(chosen: csr_array) -> NDArray[np.float64]:
    """X'X of `chosen`, dense and Fortran-contiguous, as LAPACK takes it. A sparse one of all items would be larger."""
    of_item = chosen.T.tocsr()
    num_items = chosen.shape[1]
    gram: NDArray[np.float64] = np.empty((num_items, num_items), order="F")
    for start in range(0, num_items, ITEMS_PER_BLOCK):
        block = slice(start, start + ITEMS_PER_BLOCK)
        gram[:, block] = (of_item[block] @ chosen).toarray().T
    return gram
