"""Learning rates and the order of sessions. They are pure functions of the step, so resuming needs no saved state."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langptune_rs.seeds import generator


def linear_decay(base: float, step: int, total: int) -> float:
    """Learning rate of the 0-based `step` out of `total`: `base` at the first, falling linearly towards 0."""
    return base * (1 - step / total)


def batch_rows(num_rows: int, batch_size: int, batch: int, seed: int) -> NDArray[np.int64]:
    """Rows of the 0-based `batch` in an endless stream of shuffled epochs, int64 (batch_size,).

    An epoch visits every row once. A batch may run over into the next epoch; only then can it hold a row twice.
    """
    first, last = batch * batch_size, (batch + 1) * batch_size
    epochs = range(first // num_rows, (last - 1) // num_rows + 1)
    stream = np.concatenate([generator(seed, epoch).permutation(num_rows) for epoch in epochs])
    start = first - epochs[0] * num_rows
    return stream[start : start + batch_size]
