"""Learning rates and the order of sessions, as pure functions of the step: nothing of them needs saving to resume."""

from __future__ import annotations

import numpy as np

from langptune_rs.seeds import generator


def linear_decay(base: float, step: int, total: int) -> float:
    """Learning rate of the 0-based `step` out of `total`: `base` at the first, falling linearly towards 0."""
    return base * (1 - step / total)


def batch_rows(num_rows: int, batch_size: int, batch: int, seed: int) -> np.ndarray:
    """Rows of the 0-based `batch` in an endless stream of shuffled epochs, int64 (batch_size,).

    An epoch visits every row once; a batch may run over into the next epoch, and even then holds no row twice unless
    the end of one epoch and the start of the next both hold it.
    """
    first, last = batch * batch_size, (batch + 1) * batch_size
    epochs = range(first // num_rows, (last - 1) // num_rows + 1)
    stream = np.concatenate([generator(seed, epoch).permutation(num_rows) for epoch in epochs])
    start = first - epochs[0] * num_rows
    return stream[start : start + batch_size]
