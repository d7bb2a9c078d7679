"""Exact ranking of a whole catalog."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from langptune_rs import _core
from langptune_rs.errors import InputError
from langptune_rs.evaluation.arrays import Ragged, Rows, as_ragged, check_embeddings, is_one_per_row, one_per_row

Ties = Literal["index", "min", "max", "mean"]


class ItemIndex:
    """Ranks all items of a catalog for every user, exactly and without a matrix of all scores.

    A score is the float32 dot product of a user and an item with one fixed order of summation, so ranks and top-k
    lists are the same to the bit for any number of threads, any batch of users and any CPU. They follow the total
    order (-score, item index). Give unit rows for cosine similarity.

    A copy of the items in integers of 16 bits (half their memory) rules most of them out first, under a proven bound on
    its error, and only the doubtful ones are scored in float32; the results are the same. The environment variable
    LANGPTUNE_KERNEL forces a kernel: "avx512-vnni", "avx512", "avx2", "neon" or "portable".

    The index keeps a reference to `item_embeddings`: leave the array as it is while the index lives. A memory-mapped
    array works. Ctrl-C interrupts `rank` and `search`.

    >>> ItemIndex(np.eye(3, dtype=np.float32))
    ItemIndex(3 items, dim 3)

    Args:
        item_embeddings: float32 (n_items, dim), C-contiguous; row `i` is item `i`.

    Raises:
        InputError: for another dtype, shape or layout, for no items, for a row with NaN or infinity, and for a
            LANGPTUNE_KERNEL that this CPU does not run.
    """

    def __init__(self, item_embeddings: NDArray[np.float32]) -> None:
        self._core = _core.ItemIndex(check_embeddings(item_embeddings, "item_embeddings"))

    @property
    def item_embeddings(self) -> NDArray[np.float32]:
        """The caller's array, float32 (n_items, dim)."""
        return self._core.item_embeddings

    @staticmethod
    def kernels() -> list[str]:
        """The kernels that this CPU runs, the fastest first."""
        return _core.ItemIndex.kernels()

    @property
    def kernel(self) -> str:
        """The instructions that score, as in LANGPTUNE_KERNEL."""
        return self._core.kernel

    @property
    def rescored_share(self) -> float:
        """The share of all scores so far that had to be computed in float32; 0 before the first."""
        return self._core.rescored_share

    @property
    def dim(self) -> int:
        """Length of an item's vector."""
        return self.item_embeddings.shape[1]

    def __len__(self) -> int:
        """Number of items."""
        return self.item_embeddings.shape[0]

    def __repr__(self) -> str:
        return f"ItemIndex({len(self)} items, dim {self.dim})"

    def rank(
        self, user_embeddings: NDArray[np.float32], targets: Rows, *, exclude: Rows | None = None, ties: Ties = "index"
    ) -> NDArray[Any] | Ragged:
        """The 1-based rank of each user's target among all items that are not excluded.

        >>> index = ItemIndex(np.array([[2, 0], [1, 1], [0, 2]], dtype=np.float32))
        >>> users = np.array([[1, 0], [0, 3]], dtype=np.float32)
        >>> index.rank(users, targets=[1, 0])
        array([2, 3])
        >>> index.rank(users, targets=[1, 0], exclude=[[0], [1, 2]])
        array([1, 1])

        Args:
            user_embeddings: float32 (n_users, dim), C-contiguous.
            targets: item indexes: (n_users,), or several relevant items per user as an (n_users, t) array, a list of
                rows, or (offsets, indexes).
            exclude: items that do not take part, such as each user's history: an (n_users, h) array, a list of rows,
                or (offsets, indexes) as of a CSR matrix (`indptr`, `indices`). An item may be listed twice.
            ties: what an item of the same score does to the rank: "index" puts the smaller item index first, "min"
                and "max" give the best and the worst rank of the tied items, "mean" the mean of those two.

        Returns:
            Ranks in the form of `targets`: int64 (n_users,) or (n_users, t), or `Ragged` rows of int64; float64
            instead of int64 for ties="mean". Other targets of the same user count like any item.

        Raises:
            InputError: names the first row that holds NaN, infinity, an index out of range, a target twice or an
                excluded target; and for another dtype, shape or layout.
        """
        users = check_embeddings(user_embeddings, "user_embeddings")
        rows = one_per_row(targets, "targets") if is_one_per_row(targets) else as_ragged(targets, "targets")
        flat = self._core.rank(users, (rows.offsets, rows.values), _excluded(exclude), str(ties))
        ranks = flat if ties == "mean" else flat.astype(np.int64)
        if is_one_per_row(targets):
            return ranks
        return ranks.reshape(targets.shape) if isinstance(targets, np.ndarray) else Ragged(rows.offsets, ranks)

    def search(
        self, user_embeddings: NDArray[np.float32], k: int, *, exclude: Rows | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best items of every user that are not excluded, best first.

        >>> index = ItemIndex(np.array([[2, 0], [1, 1], [0, 2]], dtype=np.float32))
        >>> users = np.array([[1, 0], [0, 3]], dtype=np.float32)
        >>> scores, ids = index.search(users, k=2, exclude=[[0], []])
        >>> scores.tolist(), ids.tolist()
        ([[1.0, 0.0], [6.0, 3.0]], [[1, 2], [2, 1]])

        Args:
            user_embeddings: float32 (n_users, dim), C-contiguous.
            k: how many items, from 1 to the number of items that are left for every user.
            exclude: as in `rank`.

        Returns:
            (scores, ids): float32 (n_users, k) and int64 (n_users, k), by (-score, item index).

        Raises:
            InputError: as `rank`, and when a user has fewer than k items left, naming the row.
        """
        users = check_embeddings(user_embeddings, "user_embeddings")
        if not isinstance(k, (int, np.integer)) or isinstance(k, bool) or k < 1:
            raise InputError(f"k = {k!r}: pass a whole number of items, at least 1")
        if k > len(self):
            raise InputError(f"k = {k}: the index holds only {len(self)} items; pass k <= {len(self)}")
        return self._core.search(users, int(k), _excluded(exclude))


def _excluded(exclude: Rows | None) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    if exclude is None:
        return None
    rows = as_ragged(exclude, "exclude")
    return rows.offsets, rows.values
