"""NMF: non-negative matrix factorization of the users' choices (section 4.2, reference 30)."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveInt
from scipy.sparse import csr_array

from langptune_rs.baselines.interactions import user_items
from langptune_rs.baselines.method import VectorMethod
from langptune_rs.config.section import Section
from langptune_rs.data import Dataset, Sessions
from langptune_rs.errors import DataError
from langptune_rs.files import write_text
from langptune_rs.seeds import derive_seed

_FACTORS, _FACTS = "item_factors.npy", "nmf.json"


class NmfConfig(Section):
    """The factorization. Coordinate descent on the squared error is what appendix C calls batch HALS and L2 loss."""

    components: PositiveInt = 1000
    """Factors of each user and item (appendix C). At most as many as there are users, and as there are items."""
    max_iter: PositiveInt = 200
    """Passes over all factors at most; scikit-learn's default, as the paper names none. What the last pass leaves is
    used, converged or not."""
    tolerance: NonNegativeFloat = 1e-4
    """The passes end earlier once one moves the factors by this share of what the first did; scikit-learn's default."""


class Nmf(VectorMethod):
    """A session's vector is what the item factors explain of its history best, without negative numbers.

    That is what the factorization gives a user who chose the items of the history and no others, with the item factors
    as they are.
    """

    name = "NMF"
    Config = NmfConfig
    learns_from_histories = True
    grid: ClassVar[Mapping[str, Sequence[object]]] = {"components": (10, 30, 100, 300, 1000)}

    def __init__(self, item_factors: NDArray[np.float32] | None = None, num_passes: int = 0, converged: bool = True):
        """`item_factors` is float32 (n_items, components), none negative.

        `num_passes` and `converged` say how the factorization ended.
        """
        self._item_factors, self.num_passes, self.converged = item_factors, num_passes, converged

    def fit(self, dataset: Dataset, config: NmfConfig, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`; the singular vectors that the factors start from are estimated with `seed`.

        Raises `DataError` for more components than users or items.
        """
        chosen = user_items(dataset)
        most = min(chosen.shape)
        if config.components > most:
            raise DataError(
                f"NMF cannot have components = {config.components}: {chosen.shape[0]} users chose among "
                f"{chosen.shape[1]} items, and factors beyond the smaller of the two explain nothing more. Pass "
                f"components from 1 to {most}, or take more data."
            )
        self._item_factors, self.num_passes = factorize(chosen, config, derive_seed("nmf", seed))
        self.converged = self.num_passes < config.max_iter

    @property
    def unfinished(self) -> str:
        """See `Method.unfinished`."""
        return "" if self.converged else f"The factors had not settled after max_iter = {self.num_passes} passes."

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """The item factors."""
        assert self._item_factors is not None, "fit or open comes first"
        return self._item_factors

    def session_vectors(self, sessions: Sessions) -> NDArray[np.float32]:
        """See `VectorMethod.session_vectors`; none negative, each computed by itself in float64."""
        factors = self.item_vectors.astype(np.float64)
        gram = factors.T @ factors
        vectors = np.empty((len(sessions), len(gram)), dtype=np.float32)
        for vector, history in zip(vectors, sessions.histories, strict=True):
            vector[:] = non_negative_solution(gram, factors[np.unique(history)].sum(axis=0))
        return vectors

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        np.save(folder / _FACTORS, self.item_vectors, allow_pickle=False)
        write_text(folder / _FACTS, json.dumps({"num_passes": self.num_passes, "converged": self.converged}) + "\n")

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`."""
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        return cls(np.load(folder / _FACTORS, allow_pickle=False), **facts)


def factorize(chosen: csr_array, config: NmfConfig, seed: int) -> tuple[NDArray[np.float32], int]:
    """(item factors H', number of passes) of X = WH, non-negative, by scikit-learn's coordinate descent.

    `chosen` is X, (n_users, n_items) with 1 where a user chose an item; H' is float32 (n_items, components).
    """
    from sklearn.decomposition import NMF
    from sklearn.exceptions import ConvergenceWarning

    model = NMF(
        config.components,
        init="nndsvda",
        solver="cd",
        beta_loss="frobenius",
        tol=config.tolerance,
        max_iter=config.max_iter,
        random_state=seed % 2**32,
    )
    with warnings.catch_warnings():
        # `Nmf.converged` says the same. Ranking has often stopped to change long before the factors do.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(chosen)
    return np.ascontiguousarray(model.components_.T, dtype=np.float32), int(model.n_iter_)


def non_negative_solution(gram: NDArray[np.float64], product: NDArray[np.float64]) -> NDArray[np.float64]:
    """The w >= 0 of min ||Aw - b||^2, (k,), for gram = A'A, (k, k), and product = A'b, (k,).

    Only few of many components are above 0 for a short history, and only for these are equations solved (Bro and de
    Jong, 1997, after Lawson and Hanson). The solution has w > 0 where the gradient A'(b - Aw) is 0, and w = 0 where it
    is not above 0, to rounding.
    """
    solution = np.zeros_like(product)
    used: list[int] = []
    barred: list[int] = []
    tolerance = 10 * np.finfo(np.float64).eps * len(product) * product.max(initial=0.0)
    for _ in range(3 * len(product)):
        gradient = product - solution[used] @ gram[used]
        gradient[used + barred] = -np.inf
        best = int(gradient.argmax())
        if gradient[best] <= tolerance:
            break
        wanted = _solve(gram, product, [*used, best])
        if wanted[-1] <= 0:  # its gradient was above 0 by rounding alone
            barred.append(best)
            continue
        used, barred = [*used, best], []
        while wanted.min() <= 0:
            # Go toward what is wanted until the first component is 0, and leave that one out.
            now = solution[used]
            shares = np.divide(now, now - wanted, out=np.full_like(now, np.inf), where=wanted <= 0)
            now += shares.min() * (wanted - now)
            now[shares == shares.min()] = 0.0
            solution[used] = now
            used = [component for component, value in zip(used, now, strict=True) if value > 0]
            wanted = _solve(gram, product, used)
        solution[used] = wanted
    return solution


def _solve(gram: NDArray[np.float64], product: NDArray[np.float64], used: list[int]) -> NDArray[np.float64]:
    """The unconstrained solution with the components `used` alone."""
    return np.asarray(np.linalg.solve(gram[np.ix_(used, used)], product[used]), dtype=np.float64)
