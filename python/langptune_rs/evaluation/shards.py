"""A catalog in several shards, on one machine or many, ranked to the same bits as by one index."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langptune_rs import _core
from langptune_rs.arrays import SCORES, Ragged, Rows, as_ragged, check_embeddings, in_form_of, rows_of
from langptune_rs.errors import InputError
from langptune_rs.evaluation.index import ItemIndex, Ties, check_k

Map = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""What applies a function to every shard and returns the results in order, as the builtin `map` does."""


class ShardOnDisk(ItemIndex):
    """An `ItemIndex` of a file of items, mapped into memory. A pickle holds its path, and unpickling opens the file.

    >>> import pickle
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     np.save(f"{folder}/items.npy", np.eye(3, dtype=np.float32))
    ...     print(pickle.loads(pickle.dumps(ShardOnDisk(f"{folder}/items.npy", first_item=2))).ids)
    range(2, 5)

    Args:
        path: a .npy file of float32 (n_items, dim), as `np.save` writes it, at the same path wherever it is unpickled.
        first_item, keep_rounded: as in `ItemIndex`.

    Raises:
        InputError: for a file that cannot be read as .npy, and as `ItemIndex`.
    """

    def __init__(self, path: str | Path, *, first_item: int = 0, keep_rounded: bool = True) -> None:
        self._path, self._keep_rounded = Path(path).absolute(), keep_rounded
        try:
            items = np.lib.format.open_memmap(self._path, mode="r")
        except (OSError, ValueError) as error:
            raise InputError(f"{path} is no .npy file that can be mapped ({error}): write it with np.save") from None
        super().__init__(items, first_item=first_item, keep_rounded=keep_rounded)

    def __reduce__(self) -> tuple[Callable[..., ShardOnDisk], tuple[Path]]:
        return partial(type(self), first_item=self.ids.start, keep_rounded=self._keep_rounded), (self._path,)


class ShardedIndex:
    """Ranks and searches a catalog whose items are in several `ItemIndex`es, to the same bits as a single one.

    >>> items = np.eye(3, dtype=np.float32)
    >>> index = ShardedIndex([ItemIndex(items[:2]), ItemIndex(items[2:], first_item=2)])
    >>> index.rank(np.array([[1, 0, 3]], dtype=np.float32), [0])
    array([2])

    Items never leave their shard: only users, targets, exclusions and a few numbers for each user are sent. `rank` asks
    the shards for the scores of the targets, and then for how many items rank above; `search` asks for their k best.

    Args:
        shards: in any order; together they hold items 0 to n, each once.
        map: runs a function on every shard, such as `ThreadPoolExecutor().map` or the map of a distributed engine. The
            shards may be the engine's handles, such as futures. The functions can be pickled.

    Raises:
        InputError: for no shards, for a shard that is no `ItemIndex`, and for an item in two shards or in none.
    """

    def __init__(self, shards: Sequence[Any], *, map: Map = builtins.map) -> None:
        if not isinstance(shards, Sequence) or isinstance(shards, str):
            raise InputError(f"shards is a {type(shards).__name__}: pass a list of ItemIndex")
        self._map, self._shards = map, shards
        self._num_items = _num_items(list(map(_ids, shards)))

    def __len__(self) -> int:
        """Number of items."""
        return self._num_items

    def __repr__(self) -> str:
        return f"ShardedIndex({len(self)} items in {len(self._shards)} shards)"

    def rank(
        self, user_embeddings: NDArray[np.float32], targets: Rows, *, exclude: Rows | None = None, ties: Ties = "index"
    ) -> NDArray[Any] | Ragged:
        """The 1-based rank of each user's target among all items of the catalog that are not excluded.

        Args:
            user_embeddings, targets, exclude, ties: as in `ItemIndex.rank`.

        Returns:
            Ranks in the form of `targets`, as `ItemIndex.rank`.

        Raises:
            InputError: as `ItemIndex.rank`.
        """
        rows = rows_of(targets, "targets")
        exclude = self._checked(exclude, targets=rows)
        scores = np.fmax.reduce([rows.values for rows in self._ask("score", user_embeddings, rows)])
        counts = self._ask("count_above", user_embeddings, rows, scores, exclude=exclude, ties=ties)
        return in_form_of(targets, rows, 1 + sum(count.values for count in counts))

    def score_targets(self, *_: object, **__: object) -> Any:
        """Refused: a probability needs the scores of all items in one place. See `ItemIndex.score_targets`.

        Raises:
            InputError: always.
        """
        raise InputError(
            f"{self!r} gives no log-probabilities: use `rank`, or build one ItemIndex of the whole catalog, which may "
            "be a memory-mapped array"
        )

    def search(
        self, user_embeddings: NDArray[np.float32], k: int, *, exclude: Rows | None = None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The k best items of the catalog for every user that are not excluded, best first.

        Args:
            user_embeddings, k, exclude: as in `ItemIndex.search`.

        Returns:
            (scores, ids): float32 (n_users, k) and int64 (n_users, k), by (-score, item index).

        Raises:
            InputError: as `ItemIndex.search`.
        """
        k = check_k(k, len(self))
        exclude = self._checked(exclude)
        return merge_candidates(list(self._ask("candidates", user_embeddings, k, exclude=exclude)), k)

    def _ask(self, method: str, user_embeddings: object, *arguments: Any, **options: Any) -> Iterable[Any]:
        users = check_embeddings(user_embeddings, "user_embeddings")
        return self._map(partial(_answer, method, users, arguments, options), self._shards)

    def _checked(self, exclude: Rows | None, targets: Ragged | None = None) -> Ragged | None:
        """`exclude` as rows. Raises unless its items and the targets are in the catalog, whose size no shard knows."""
        excluded = None if exclude is None else as_ragged(exclude, "exclude")
        first, second = (None if rows is None else (rows.offsets, rows.values) for rows in (targets, excluded))
        _core.check_ids(first, second, len(self))
        return excluded


def _ids(shard: object) -> range:
    ids = getattr(shard, "ids", None)
    if not isinstance(ids, range):
        raise InputError(
            f"a shard is a {type(shard).__name__}: pass ItemIndexes, or an engine's handles to them with its `map`"
        )
    return ids


def _answer(
    method: str, user_embeddings: NDArray[np.float32], arguments: Sequence[Any], options: Mapping[str, Any], shard: Any
) -> Any:
    """A shard's answer. Arrays that came from another process may have lost their alignment, which is restored."""
    return getattr(shard, method)(np.require(user_embeddings, requirements=["ALIGNED"]), *arguments, **options)


def merge_candidates(of_shards: Sequence[tuple[Rows, Rows]], k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Merges what the shards of a catalog found into the k best items of every user, by (-score, item index).

    >>> scores, ids = merge_candidates([([[0.9, 0.2]], [[1, 0]]), ([[0.5]], [[2]])], k=2)
    >>> ids
    array([[1, 2]])

    Args:
        of_shards: (scores, ids) from each shard, with a row of float32 and a row of integers for each user, as
            `ItemIndex.candidates` and `ItemIndex.search` return them.
        k: how many items, at least 1 and at most as many as there are for each user.

    Returns:
        (scores, ids) as `ItemIndex.search` returns them for the whole catalog.

    Raises:
        InputError: for no shards, for shards that differ in their number of users, and for an array of scores that is
            not float32; names the first row with a score that is not finite, an item that two shards found, or fewer
            than k items.
    """
    if not isinstance(of_shards, Sequence) or not of_shards:
        raise InputError("nothing was found: pass a list of what at least one shard returned")
    for shard, pair in enumerate(of_shards):
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise InputError(f"what shard {shard} found is a {type(pair).__name__}: pass the tuple (scores, ids)")
    found = [_arrays(*pair) for pair in of_shards]
    _, scores, ids = _core.merge_candidates(found, check_k(k))
    return scores.reshape(-1, k), ids.reshape(-1, k)


def _arrays(scores: Rows, ids: Rows) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    scored, found = as_ragged(scores, "scores", SCORES), as_ragged(ids, "ids")
    if not np.array_equal(scored.offsets, found.offsets) or len(scored.values) != len(found.values):
        raise InputError("scores and ids have rows of different length: pass both as a shard returned them")
    return found.offsets, scored.values, found.values


def _num_items(ids_of_shards: list[range]) -> int:
    """How many items the shards hold. Raises `InputError` unless they hold items 0 to n, each once."""
    if not ids_of_shards:
        raise InputError("shards is empty: at least one is needed")
    end = 0
    for ids in sorted(ids_of_shards, key=lambda ids: ids.start):
        if ids.start != end:
            fault = f"item {end} is in no shard" if ids.start > end else f"item {ids.start} is in two shards"
            raise InputError(f"{fault}: set each shard's `first_item` to the number of items in the shards before it")
        end = ids.stop
    return end
