"""Confidence intervals of means, and tests of whether two methods differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langptune_rs import _core
from langptune_rs.arrays import NUMBERS, check_number, check_whole, flat_row
from langptune_rs.errors import InputError

IntervalMethod = Literal["percentile", "bca"]


def bootstrap_interval(
    scores: ArrayLike,
    *,
    level: float = 0.95,
    seed: int = 0,
    num_resamples: int = 10_000,
    method: IntervalMethod = "percentile",
    clusters: ArrayLike | None = None,
) -> tuple[float, float]:
    """The bootstrap interval (low, high) of the mean, from the means of users resampled with replacement.

    "percentile" (Efron, 1979) takes the quantiles (1 - level) / 2 and (1 + level) / 2 of the resampled means. "bca",
    bias-corrected and accelerated (Efron, 1987), moves each of the two quantiles to

        Phi(z0 + (z0 + z) / (1 - a (z0 + z)))

    where z is its normal quantile, z0 is the normal quantile of the share of resampled means below the mean (half of
    those equal to it included), and a = sum d^3 / (6 (sum d^2)^(3/2)) over d = score - mean is the acceleration by the
    jackknife. "bca" is better where scores are few and skewed. Where all scores are equal, both bounds are that score.

    With `clusters`, such as the users that sessions belong to, whole clusters are drawn with replacement, and the mean
    of a resample is that of all scores in the clusters drawn: the sum of their sums over the sum of their sizes
    (Davison and Hinkley, 1997, section 3.8; Field and Welsh, 2007). So scores of one cluster may depend on each other
    in any way. The mean of the clusters' means would be the mean of other scores where clusters differ in size, and a
    sum over a fixed number of scores would doubt even a constant. With one score a cluster nothing changes. "bca" takes
    d = sum - mean size of each cluster.

    The interval depends only on the seed: every resample has its own stream of random numbers, whatever thread draws
    it.

    >>> low, high = bootstrap_interval([0.0, 0.5, 1.0] * 100)
    >>> low < 0.5 < high
    True

    Args:
        scores: (n_users,) finite numbers.
        level: share of the resampled means inside the interval, in (0, 1).
        seed: seeds the draws, a whole number from 0 to 2**64 - 1.
        num_resamples: how many times the users are drawn, from 1 to 10,000,000, which take 640 MB.
        method: "percentile" or "bca".
        clusters: (n_users,) names or numbers; scores with the same one belong together.

    Raises:
        InputError: for no scores, a score that is not finite, a level outside (0, 1), or another method; for clusters
            of another number; for "bca" when all resampled means lie on one side of the mean, which happens with a
            handful of resamples.
    """
    intervals = bootstrap_intervals(
        {"scores": scores}, level=level, seed=seed, num_resamples=num_resamples, method=method, clusters=clusters
    )
    return intervals["scores"]


def bootstrap_intervals(
    scores: Mapping[str, ArrayLike],
    *,
    level: float = 0.95,
    seed: int = 0,
    num_resamples: int = 10_000,
    method: IntervalMethod = "percentile",
    clusters: ArrayLike | None = None,
) -> dict[str, tuple[float, float]]:
    """The `bootstrap_interval` of several scores of the same users, by name.

    All come from the same draws, so that four take hardly longer than one.

    >>> intervals = bootstrap_intervals({"mrr": [0.0, 0.5, 1.0] * 100, "recall": [0.0, 1.0, 1.0] * 100})
    >>> intervals["mrr"][1] < intervals["recall"][0]
    True

    Args:
        scores: (n_users,) finite numbers for each name.
        level, seed, num_resamples, method, clusters: as in `bootstrap_interval`.

    Raises:
        InputError: as `bootstrap_interval`; names scores of different length.
    """
    if not isinstance(scores, Mapping):
        raise InputError(f'scores is a {type(scores).__name__}: pass scores by name, such as {{"mrr": [0.5, 1.0]}}')
    samples = {str(name): flat_row(values, str(name), NUMBERS) for name, values in scores.items()}
    for name, values in samples.items():
        first, first_values = next(iter(samples.items()))
        if len(values) != len(first_values):
            raise InputError(
                f'"{name}" holds {len(values)} scores and "{first}" {len(first_values)}: pass those of the same users'
            )
    level, resamples = check_number(level, "level"), check_whole(num_resamples, "num_resamples", 1)
    seed = check_seed(seed)
    sizes = None
    if clusters is not None and samples:
        places, of_clusters = _places(clusters, len(next(iter(samples.values()))))
        if all(np.isfinite(values).all() for values in samples.values()):  # else the core names the score
            samples = {name: np.bincount(places, values) for name, values in samples.items()}
            sizes = of_clusters
    intervals = _core.bootstrap_intervals(list(samples.values()), sizes, str(method), level, resamples, seed)
    return dict(zip(scores, intervals, strict=True))


def paired_permutation_test(
    a: ArrayLike,
    b: ArrayLike,
    *,
    seed: int = 0,
    num_permutations: int = 100_000,
    clusters: ArrayLike | None = None,
) -> float:
    """The two-sided p-value of a paired permutation test that the means of `a` and `b` are equal.

    It swaps each user's two scores at random and counts how often the mean difference is at least as far from 0 as the
    observed one. The observed arrangement counts too, p = (1 + count) / (1 + num_permutations), so p is never 0
    (Phipson and Smyth, 2010). Where few users differ, so that no more than `num_permutations` arrangements exist, each
    is tried once and p is exact. The result depends only on the scores and the seed.

    With `clusters`, such as the users that sessions belong to, all scores of a cluster are swapped together (Winkler et
    al., 2015). If the methods do not differ, then swapping them for a whole user changes nothing in distribution,
    however much the sessions of the user resemble each other; swapping single sessions does, and makes p too small. The
    total of the differences d is sum_c s_c (sum of d in c) with a sign s_c for each cluster, so the test of the
    clusters' sums is this test, without an approximation, whatever the sizes are.

    >>> paired_permutation_test([1.0, 1.0, 0.5], [0.5, 0.5, 0.5])  # 2 of the 4 arrangements are as far from 0
    0.5

    Args:
        a, b: (n_users,) finite numbers, scores of the same users in the same order.
        seed: seeds the swaps, a whole number from 0 to 2**64 - 1.
        num_permutations: how many arrangements are tried, at least 1.
        clusters: (n_users,) names or numbers; scores with the same one belong together.

    Raises:
        InputError: for samples of different length, without a score, or with one that is not finite; for clusters of
            another number.
    """
    a, b = flat_row(a, "a", NUMBERS), flat_row(b, "b", NUMBERS)
    if clusters is not None and len(a) == len(b):
        places, _ = _places(clusters, len(a))
        if np.isfinite(a).all() and np.isfinite(b).all():  # else the core names the score
            with np.errstate(over="ignore"):  # the core refuses infinity
                a = _sums_of_differences(a - b, places)
            b = np.zeros_like(a)
    return _core.paired_permutation_test(a, b, check_whole(num_permutations, "num_permutations", 1), check_seed(seed))


def paired_t_test(a: ArrayLike, b: ArrayLike) -> float:
    """The two-sided p-value of Student's paired t-test (1908) that the means of `a` and `b` are equal.

    t = mean(d) / sqrt(var(d) / n) over the differences d = a - b of n users, var with n - 1 degrees of freedom, as in
    scipy's `ttest_rel`. The test assumes that the mean difference is normal, as it is for many users. p = 1 where no
    user differs.

    >>> round(paired_t_test([0.9, 0.8, 1.0, 0.7], [0.5, 0.6, 0.5, 0.6]), 4)  # t = 3.2863, 3 degrees of freedom
    0.0462

    Args:
        a, b: (n_users,) finite numbers, scores of the same users in the same order.

    Raises:
        InputError: for samples of different length, without a score, or with one that is not finite; also where one
            user, or the same difference for every user, leaves the variance unknown.
    """
    return _core.paired_t_test(flat_row(a, "a", NUMBERS), flat_row(b, "b", NUMBERS))


def holm(p_values: ArrayLike) -> list[float]:
    """The p-values corrected for their number by Holm's step-down method (1979), in the order given.

    >>> holm([0.5, 0.01, 0.02])
    [0.5, 0.03, 0.04]

    Args:
        p_values: (n_tests,) numbers in [0, 1].

    Raises:
        InputError: for a p-value outside [0, 1].
    """
    return _core.holm(flat_row(p_values, "p_values", NUMBERS).tolist())


def check_seed(seed: object) -> int:
    """`seed` as an int of 64 bits without sign."""
    return check_whole(seed, "seed", 0, 2**64 - 1)


def _places(clusters: ArrayLike, num_scores: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The cluster of each score as a number from 0, (n_scores,), and the number of scores of each, (n_clusters,)."""
    try:
        names = np.asarray(clusters)
        _, places, sizes = np.unique(names, return_inverse=True, return_counts=True)
    except (ValueError, TypeError):
        raise InputError("clusters holds what cannot be compared: pass a name or a number for each score") from None
    if names.shape != (num_scores,):
        raise InputError(
            f"clusters has shape {names.shape} and there are {num_scores} scores: pass the cluster of each score, such "
            "as the id of its user"
        )
    return places, sizes.astype(np.float64)


_ROUNDING = 1e-12
"""Differences count as equal when they differ by less than this share of their sizes, as in the core."""


def _sums_of_differences(differences: NDArray[np.float64], places: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of each cluster's differences, float64 (n_clusters,); 0 where they cancel but for rounding."""
    sums, sizes = np.bincount(places, differences), np.bincount(places, np.abs(differences))
    return np.where(np.abs(sums) <= _ROUNDING * sizes, 0.0, sums)
