"""How sure a mean is, and whether two methods really differ."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langptune_rs import _core
from langptune_rs.errors import InputError


def bootstrap_interval(
    scores: ArrayLike, *, level: float = 0.95, seed: int = 0, num_resamples: int = 10_000
) -> tuple[float, float]:
    """(low, high) of the mean by the percentile bootstrap (Efron, 1979).

    Resamples users with replacement and takes the quantiles (1 - level) / 2 and (1 + level) / 2 of the means. Depends
    on the seed alone: every resample has its own stream of random numbers, whatever thread draws it.

    Args:
        scores: (n_users,) finite numbers.
        level: share of the resampled means inside the interval, in (0, 1).

    Raises:
        InputError: for no scores, a score that is not finite, or a level outside (0, 1).
    """
    return _core.bootstrap_interval(
        _scores(scores, "scores"), float(level), _whole(num_resamples, "num_resamples", 1), _whole(seed, "seed", 0)
    )


def paired_permutation_test(a: ArrayLike, b: ArrayLike, *, seed: int = 0, num_permutations: int = 100_000) -> float:
    """The two-sided p-value of the difference of the means of `a` and `b`, scores of the same users in the same order.

    Swaps each user's two scores at random and counts how often the mean difference is at least as far from 0 as the
    observed one. The observed arrangement counts as one, p = (1 + count) / (1 + num_permutations), so p is never 0
    (Phipson and Smyth, 2010). Where few users differ, so that no more than `num_permutations` arrangements exist, each
    is tried once and p is exact. Depends on the seed alone.

    Raises:
        InputError: for samples of different length, without a score, or with one that is not finite.
    """
    return _core.paired_permutation_test(
        _scores(a, "a"), _scores(b, "b"), _whole(num_permutations, "num_permutations", 1), _whole(seed, "seed", 0)
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number by Holm's step-down method (1979), in the order given.

    Raises:
        InputError: for a p-value outside [0, 1].
    """
    return _core.holm([float(p_value) for p_value in p_values])


def _scores(scores: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(scores)
    if array.ndim != 1 or array.dtype.kind not in "iuf":
        raise InputError(
            f"{name} has shape {array.shape} and type {array.dtype}: pass one number for each user, (n_users,)"
        )
    return np.ascontiguousarray(array, dtype=np.float64)


def _whole(number: int, name: str, least: int) -> int:
    if not isinstance(number, (int, np.integer)) or isinstance(number, bool) or not least <= number < 2**64:
        raise InputError(f"{name} = {number!r}: pass a whole number from {least}")
    return int(number)
