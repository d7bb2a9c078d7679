"""Noticing that an array has changed since something was computed from it, by comparing a sample of its values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langptune_rs.errors import InputError
from langptune_rs.seeds import generator

SAMPLED = 8192
"""How many values are compared: they are read in less than a fiftieth of the time that one user's rank takes."""


class Watched:
    """An array, and some of its values as they were.

    The array is cut into `SAMPLED` equal parts, and one value of each is kept. It does not matter what writes: another
    view, a tensor that shares the memory, or a mapped file. A change is noticed if it reaches every value of one part:
    any value of an array of `SAMPLED` values, any row of 4,096, and any run of n / 4,096 rows of a longer array.
    """

    def __init__(self, array: NDArray[np.float32], name: str) -> None:
        """`array` is C-contiguous; `name` is the argument that it came as."""
        self._array, self._name = array, name
        edges = np.linspace(0, array.size, min(array.size, SAMPLED) + 1).astype(np.intp)
        self._places = generator("watched", array.size).integers(edges[:-1], edges[1:])
        self._before = self._now()

    def check(self) -> None:
        """Raise `InputError` when a value of the sample is not the one that it was."""
        if not np.array_equal(self._now(), self._before):
            raise InputError(
                f"{self._name} has changed since the index was built, so results would belong neither to the items as "
                f"they were nor as they are: build an index of the changed array, or give the index a copy, "
                f"{self._name}.copy(), before you change it"
            )

    def _now(self) -> NDArray[np.uint32]:
        """The bits of the sampled values, since NaN equals nothing."""
        bits: NDArray[np.uint32] = np.asarray(self._array).reshape(-1).view(np.uint32).take(self._places)
        return bits
