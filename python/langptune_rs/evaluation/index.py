"""Exact ranking of a whole catalog."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from langptune_rs import _core
from langptune_rs.arrays import (
    LARGEST,
    SCORES,
    Ragged,
    Rows,
    as_ragged,
    check_embeddings,
    check_number,
    check_whole,
    in_form_of,
    rows_of,
)
from langptune_rs.errors import InputError
from langptune_rs.evaluation.changes import Watched

Ties = Literal["index", "min", "max", "mean"]


class TargetScores(NamedTuple):
    """What `ItemIndex.score_targets` returns, both in the form of the targets.

    >>> index = ItemIndex(np.eye(2, dtype=np.float32))
    >>> index.score_targets(np.ones((1, 2), dtype=np.float32), [1], temperature=1.0).log_probs.round(3)
    array([-0.693])
    """

    ranks: NDArray[np.int64] | Ragged
    """1-based, int64."""
    log_probs: NDArray[np.float64] | Ragged
    """ln softmax(score / temperature), float64, at most 0."""


class ItemIndex:
    """Ranks all items of a catalog for every user, exactly and without a matrix of all scores.

    A score is the float32 dot product of a user and an item with one fixed order of summation, so ranks and top-k
    lists are the same to the bit for any number of threads, any batch of users and any CPU. They follow the total
    order (-score, item index). Give unit rows for cosine similarity.

    A copy of the items in 16-bit integers rules most of them out first, under a proven bound on its error. Only the
    doubtful items are scored in float32, and the results are the same. The copy takes half the items' memory and some
    17 bytes an item, 12 of them to notice that the array has changed; the AMX kernel takes up to a sixteenth more, or
    three values an item where dim is small. The environment variable LANGPTUNE_KERNEL forces a kernel: "amx",
    "avx512-vnni", "avx512", "avx2", "neon" or "portable".

    The index keeps a reference to `item_embeddings`: do not change the array while the index lives. Every call compares
    a value of each row with what it was, and refuses an array that has changed, whatever wrote it. Among more than
    8,192 items a call for one user compares some of the rows, and the next call others, so that a change of one row is
    noticed within a few users. Of a memory-mapped array, which works too, only a sample is compared. Give the index a
    copy of an array that you will change. Ctrl-C interrupts `rank`, `search` and the building of an index.

    >>> ItemIndex(np.eye(3, dtype=np.float32))
    ItemIndex(3 items, dim 3)

    Args:
        item_embeddings: float32 (n_items, dim), C-contiguous; row `i` is item `first_item + i`.
        first_item: for a shard of a catalog, the number of items in the shards before it. Item indexes are those of the
            catalog wherever they are given or returned. `score`, `count_above` and `candidates` are what a shard
            contributes to a `ShardedIndex`.
        keep_rounded: False keeps no 16-bit copy, for a catalog whose copy does not fit into memory. Blocks of items are
            then rounded at every call. The results are the same but take longer: 1.6 times for thousands of users in a
            call, 4 times for a few.

    Raises:
        InputError: for another dtype, shape or layout, for no items, for a row with NaN or infinity (named), and for a
            LANGPTUNE_KERNEL that this CPU does not run.
    """

    def __init__(self, item_embeddings: NDArray[np.float32], *, first_item: int = 0, keep_rounded: bool = True) -> None:
        items = check_embeddings(item_embeddings, "item_embeddings")
        first_item = check_whole(first_item, "first_item", 0, LARGEST - len(items))
        self._core = _core.ItemIndex(items, first_item, keep_rounded)
        self._watched = Watched(items, "item_embeddings")

    @property
    def item_embeddings(self) -> NDArray[np.float32]:
        """The caller's array, float32 (n_items, dim)."""
        return self._core.item_embeddings

    @property
    def ids(self) -> range:
        """The item indexes."""
        return range(self._core.first_item, self._core.first_item + len(self))

    @staticmethod
    def kernels() -> list[str]:
        """The kernels that this CPU runs, the fastest first."""
        return _core.ItemIndex.kernels()

    @property
    def kernel(self) -> str:
        """The kernel in use, by its name in LANGPTUNE_KERNEL."""
        return self._core.kernel

    @property
    def rescored_share(self) -> float:
        """The share of all scores so far that had to be computed in float32, in [0, 1]; 0 before the first call."""
        return self._core.rescored_share

    @property
    def dim(self) -> int:
        """Length of an item's vector."""
        return int(self.item_embeddings.shape[1])

    def __len__(self) -> int:
        """Number of items."""
        return len(self.item_embeddings)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self)} items, dim {self.dim})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise InputError(
            f"{self!r} cannot be pickled or copied, as it keeps a reference to the array of items: build one where it "
            "is needed, or save the items with np.save and pass langptune_rs.ShardOnDisk, which opens the file anew"
        )

    def rank(
        self, user_embeddings: NDArray[np.float32], targets: Rows, *, exclude: Rows | None = None, ties: Ties = "index"
    ) -> NDArray[Any] | Ragged:
        """The 1-based rank of each user's target among all items that are not excluded.

        No items are sampled: metrics over a sample can order methods differently (Krichene and Rendle, 2020).

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
            ties: the rank of a target among items of the same score: "index" puts the smaller item index first, "min"
                and "max" give the best and the worst rank of the tied items, "mean" the mean of those two.

        Returns:
            Ranks in the form of `targets`: int64 (n_users,) or (n_users, t), or `Ragged` rows of int64; float64
            instead of int64 for ties="mean". Other targets of the same user count like any item.

        Raises:
            InputError: names the first row that holds NaN, infinity, an index out of range, a target twice or an
                excluded target; for another dtype, shape or layout; and when `item_embeddings` has changed.
        """
        users = self._users(user_embeddings)
        rows = rows_of(targets, "targets")
        ranks = self._core.rank(users, (rows.offsets, rows.values), _excluded(exclude), str(ties))
        return in_form_of(targets, rows, whole_unless_mean(ranks, ties))

    def score_targets(
        self, user_embeddings: NDArray[np.float32], targets: Rows, exclude: Rows | None = None, *, temperature: float
    ) -> TargetScores:
        """The rank of each user's target and its log-probability, in one pass over all items that are not excluded.

        The probability is that of a softmax of score / temperature. It is summed from the exact scores of all items,
        with the same bits for any number of threads. It takes as long as scoring every item in float32 does: `rank`
        is faster where ranks are enough.

        >>> index = ItemIndex(np.array([[2, 0], [1, 1], [0, 2]], dtype=np.float32))
        >>> users = np.array([[1, 0], [0, 3]], dtype=np.float32)
        >>> ranks, log_probs = index.score_targets(users, [1, 0], exclude=[[0], []], temperature=1.0)
        >>> ranks, log_probs.round(3)
        (array([1, 3]), array([-0.313, -6.051]))

        Args:
            user_embeddings, targets, exclude: as in `rank`.
            temperature: a finite number above 0.

        Returns:
            Ranks as `rank` gives them with ties="index", and log-probabilities within 1e-8 of those of the exact
            scores, plus 1e-15 of the largest |score| / temperature. Other targets of the same user count like any item.

        Raises:
            InputError: as `rank`, and for a temperature out of range.
        """
        users = self._users(user_embeddings)
        rows = rows_of(targets, "targets")
        temperature = check_number(temperature, "temperature")
        ranks, log_probs = self._core.score_targets(users, (rows.offsets, rows.values), _excluded(exclude), temperature)
        return TargetScores(
            in_form_of(targets, rows, whole_unless_mean(ranks, "index")), in_form_of(targets, rows, log_probs)
        )

    def score(self, user_embeddings: NDArray[np.float32], targets: Rows) -> NDArray[np.float32] | Ragged:
        """The score of each user's target, and NaN for a target that another shard holds.

        Args:
            user_embeddings, targets: as in `rank`, the targets of all shards.

        Returns:
            float32 scores in the form of `targets`. `np.fmax` over all shards leaves no NaN.

        Raises:
            InputError: as `rank`.
        """
        users = self._users(user_embeddings)
        rows = rows_of(targets, "targets")
        return in_form_of(targets, rows, self._core.score(users, (rows.offsets, rows.values)))

    def count_above(
        self,
        user_embeddings: NDArray[np.float32],
        targets: Rows,
        scores: Rows,
        *,
        exclude: Rows | None = None,
        ties: Ties = "index",
    ) -> NDArray[Any] | Ragged:
        """How many items of this shard rank above each user's target, without the excluded ones.

        A target's rank is 1 plus the sum of these counts over all shards of the catalog.

        Args:
            user_embeddings, targets, exclude, ties: as in `rank`; the targets and exclusions of all shards.
            scores: the score of each target, from `score` of the shard that holds it.

        Returns:
            Counts in the form of `targets`: int64, or float64 for ties="mean", where they may be halves.

        Raises:
            InputError: as `rank`; for a target whose score is missing or NaN, for a target of this shard whose score is
                not the one that `score` returns, and for an array of scores that is not float32.
        """
        users = self._users(user_embeddings)
        rows = rows_of(targets, "targets")
        flat = rows_of(scores, "scores", SCORES).values
        counts = self._core.count_above(users, (rows.offsets, rows.values), flat, _excluded(exclude), str(ties))
        return in_form_of(targets, rows, whole_unless_mean(counts, ties))

    def search(
        self, user_embeddings: NDArray[np.float32], k: int, *, exclude: Rows | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best items of every user that are not excluded, best first.

        They are the first k of the total order that `rank` counts in. This is exact maximum inner product search, where
        an approximate index would miss some of the best items.

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
        users = self._users(user_embeddings)
        k = check_k(k, len(self))
        _, scores, ids = self._core.search(users, k, _excluded(exclude))
        return scores.reshape(len(users), k), ids.reshape(len(users), k)

    def candidates(
        self, user_embeddings: NDArray[np.float32], k: int, *, exclude: Rows | None = None
    ) -> tuple[Ragged, Ragged]:
        """This shard's part of a search for the k best items of the catalog: its own k best.

        Args:
            user_embeddings: as in `search`.
            k: how many items, at least 1; it may be more than the shard holds.
            exclude: as in `rank`, the exclusions of all shards.

        Returns:
            (scores, ids): a row of float32 and of int64 for each user, by (-score, item index). A row has k items, or
            all that are left if there are fewer. `merge_candidates` merges what all shards return.

        Raises:
            InputError: as `rank`.
        """
        users = self._users(user_embeddings)
        offsets, scores, ids = self._core.candidates(users, check_k(k), _excluded(exclude))
        return Ragged(offsets, scores), Ragged(offsets, ids)

    def _users(self, user_embeddings: object) -> NDArray[np.float32]:
        """`user_embeddings`, checked. Raises `InputError` also when the items are not those of the index any more."""
        users = check_embeddings(user_embeddings, "user_embeddings")
        self._watched.check(len(users))
        return users


def check_k(k: object, num_items: int | None = None) -> int:
    """`k` as an int. Raises `InputError` unless it is from 1 to `num_items`, or from 1 without that."""
    k = check_whole(k, "k", 1)
    if num_items is not None and k > num_items:
        raise InputError(f"k = {k}: the index holds only {num_items} items; pass k <= {num_items}")
    return k


def whole_unless_mean(values: NDArray[np.float64], ties: str) -> NDArray[Any]:
    """Ranks or counts as int64, except for ties="mean", where they may be halves."""
    return values if ties == "mean" else values.astype(np.int64)


def _excluded(exclude: Rows | None) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    if exclude is None:
        return None
    rows = as_ragged(exclude, "exclude")
    return rows.offsets, rows.values
