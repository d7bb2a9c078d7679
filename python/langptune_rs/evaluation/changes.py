"""Noticing that an array has changed since something was computed from it, by comparing some of its values."""

from __future__ import annotations

import mmap

import numpy as np
from numpy.typing import NDArray

from langptune_rs.errors import InputError
from langptune_rs.seeds import generator

SAMPLED = 8192
"""How many values are compared at least."""
VALUES_PER_COMPARED = 1536
"""For each value that is compared for a user, so many products are computed for his rank. A value that is compared
takes a cache line from memory, so comparing takes some hundredths of the time of ranking."""


class Watched:
    """An array, and some of its values as they were.

    One value of every row is kept, and several of each row of an array of few rows: all of an array of at most
    `SAMPLED` values. It does not matter what writes: another view, or a tensor that shares the memory.

    Rows are compared in `num_turns` turns, in each every `num_turns`-th row, so that a check costs little. A check
    takes one turn for each user that is served. So a change of all of a row is noticed before so many users are served,
    and one of as many rows in succession at once. Up to 8,192 rows take one turn, and 100,000 rows of 384 take four.

    Of a mapped file, whose pages may have to be read from disk, `SAMPLED` values are kept, spread over the whole.
    """

    def __init__(self, array: NDArray[np.float32], name: str) -> None:
        """`array` is C-contiguous; `name` is the argument that it came as."""
        self._array, self._name = array, name
        num_rows = len(array) if array.size else 0
        if _is_mapped(array) or num_rows <= SAMPLED:
            self.num_turns = 1
            self._places = _places(array.size, SAMPLED if _is_mapped(array) else _whole_rows(array))
        else:
            self.num_turns = -(-num_rows // max(SAMPLED, array.size // VALUES_PER_COMPARED))
            in_order = _places(array.size, num_rows)
            self._places = np.concatenate([in_order[turn :: self.num_turns] for turn in range(self.num_turns)])
        self._ends = np.linspace(0, len(self._places), self.num_turns + 1).astype(np.intp)
        self._before = self._now(0, len(self._places))
        self._next = 0

    def check(self, num_users: int = 1) -> None:
        """Raise `InputError` when a value that is compared before `num_users` are served is not the one that it was."""
        first, turns = self._next, min(max(1, num_users), self.num_turns)
        last = first + turns
        self._next = last % self.num_turns
        parts = [(first, min(last, self.num_turns)), (0, max(0, last - self.num_turns))]
        if not all(self._is_same(int(self._ends[start]), int(self._ends[end])) for start, end in parts):
            self._next = first  # a change that was noticed is noticed again
            raise InputError(
                f"{self._name} has changed since the index was built, so results would belong neither to the items as "
                f"they were nor as they are: build an index of the changed array, or give the index a copy, "
                f"{self._name}.copy(), before you change it"
            )

    def _is_same(self, start: int, end: int) -> bool:
        return np.array_equal(self._now(start, end), self._before[start:end])

    def _now(self, start: int, end: int) -> NDArray[np.uint32]:
        """The bits of the values at `_places[start:end]`, since NaN equals nothing."""
        bits: NDArray[np.uint32] = np.asarray(self._array).reshape(-1).view(np.uint32).take(self._places[start:end])
        return bits


def _places(size: int, num_parts: int) -> NDArray[np.intp]:
    """One place in each of equal parts of an array."""
    num_parts = min(size, num_parts)
    edges = np.arange(num_parts + 1) * size // max(1, num_parts)
    return generator("watched", size).integers(edges[:-1], edges[1:]).astype(np.intp, copy=False)


def _whole_rows(array: NDArray[np.float32]) -> int:
    """How many parts give each row of a short array as many values as others, `SAMPLED` in all at most."""
    return len(array) * max(1, SAMPLED // max(1, len(array)))


def _is_mapped(array: NDArray[np.float32]) -> bool:
    """Whether an array is in a mapped file."""
    base: object = array
    while base is not None:
        if isinstance(base, np.memmap | mmap.mmap):
            return True
        base = base.obj if isinstance(base, memoryview) else getattr(base, "base", None)
    return False
