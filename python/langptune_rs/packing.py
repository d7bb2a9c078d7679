"""Token sequences into bins of one capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langptune_rs import _core
from langptune_rs.errors import InputError
from langptune_rs.evaluation.arrays import Ragged


@dataclass(frozen=True, eq=False)
class Packing:
    """Which sequences share a bin.

    Attributes:
        bins: rows of sequence indexes, increasing within a bin; every sequence is in exactly one.
        lengths: of the sequences in tokens, int64 (n_sequences,).
        capacity: of a bin in tokens.
    """

    bins: Ragged
    lengths: NDArray[np.int64]
    capacity: int

    def __len__(self) -> int:
        """Number of bins."""
        return len(self.bins)

    @property
    def fill(self) -> float:
        """Share of the bins' capacity that holds tokens; 1 without bins."""
        return float(self.lengths.sum() / (len(self) * self.capacity)) if len(self) else 1.0


def pack_sequences(lengths: Sequence[int] | NDArray[np.integer], capacity: int) -> Packing:
    """Packs sequences by best fit decreasing: longest first, each into the fullest bin that still holds it.

    Deterministic: equal lengths go by index, equally full bins by age. Nothing is dropped, cut or split.

    Args:
        lengths: (n_sequences,) in tokens.
        capacity: tokens a bin holds, at least 1.

    Raises:
        InputError: names the first sequence that is longer than the capacity or of negative length.
    """
    array = np.asarray(lengths)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise InputError(
            f"lengths has shape {array.shape} and type {array.dtype}: pass one whole number for each sequence"
        )
    if not isinstance(capacity, (int, np.integer)) or isinstance(capacity, bool) or not 1 <= capacity < 2**63:
        raise InputError(f"capacity = {capacity!r}: pass a whole number of tokens, at least 1")
    array = np.ascontiguousarray(array, dtype=np.int64)
    return Packing(Ragged(*_core.pack_sequences(array, int(capacity))), array, int(capacity))
