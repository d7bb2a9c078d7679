"""How sure a mean is, and whether two methods really differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from numpy.typing import ArrayLike

from langptune_rs import _core
from langptune_rs.evaluation.arrays import NUMBERS, check_whole, flat_row

IntervalMethod = Literal["percentile", "bca"]


def bootstrap_interval(
    scores: ArrayLike,
    *,
    level: float = 0.95,
    seed: int = 0,
    num_resamples: int = 10_000,
    method: IntervalMethod = "percentile",
) -> tuple[float, float]:
    """(low, high) of the mean by the bootstrap, from the means of users resampled with replacement.

    "percentile" (Efron, 1979) takes their quantiles (1 - level) / 2 and (1 + level) / 2. "bca", bias-corrected and
    accelerated (Efron, 1987), takes those at, with z the normal quantile of either,

        Phi(z0 + (z0 + z) / (1 - a (z0 + z)))

    where z0 is the normal quantile of the share of resampled means below the mean (half of those equal to it included),
    and a = sum d^3 / (6 (sum d^2)^(3/2)) over d = score - mean, the acceleration by the jackknife. It is the better of
    the two where scores are few and skewed. Where all scores are equal, both bounds are that score.

    Depends on the seed alone: every resample has its own stream of random numbers, whatever thread draws it.

    Args:
        scores: (n_users,) finite numbers.
        level: share of the resampled means inside the interval, in (0, 1).

    Raises:
        InputError: for no scores, a score that is not finite, a level outside (0, 1), or another method; for "bca" when
            all resampled means lie on one side of the mean, as a handful of resamples may.
    """
    return bootstrap_intervals({"scores": scores}, level=level, seed=seed, num_resamples=num_resamples, method=method)[
        "scores"
    ]


def bootstrap_intervals(
    scores: Mapping[str, ArrayLike],
    *,
    level: float = 0.95,
    seed: int = 0,
    num_resamples: int = 10_000,
    method: IntervalMethod = "percentile",
) -> dict[str, tuple[float, float]]:
    """`bootstrap_interval` of several scores of the same users by name, from the same draws: four take hardly longer
    than one.

    Raises:
        InputError: as `bootstrap_interval`, and for scores of different length.
    """
    samples = [flat_row(of_users, name, NUMBERS) for name, of_users in scores.items()]
    resamples, seed = check_whole(num_resamples, "num_resamples", 1), check_whole(seed, "seed", 0)
    intervals = _core.bootstrap_intervals(samples, str(method), float(level), resamples, seed)
    return dict(zip(scores, intervals, strict=True))


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
        flat_row(a, "a", NUMBERS),
        flat_row(b, "b", NUMBERS),
        check_whole(num_permutations, "num_permutations", 1),
        check_whole(seed, "seed", 0),
    )


def paired_t_test(a: ArrayLike, b: ArrayLike) -> float:
    """The two-sided p-value of Student's paired t-test (1908) of the means of `a` and `b`, scores of the same users in
    the same order.

    t = mean(d) / sqrt(var(d) / n) over the differences d = a - b of n users, var with n - 1 degrees of freedom, as
    scipy's `ttest_rel`. It takes the mean difference to be normal, which many users make it. p = 1 where no user
    differs.

    Raises:
        InputError: for samples of different length, without a score, or with one that is not finite; and where one
            user, or the same difference for every user, leaves the variance unknown.
    """
    return _core.paired_t_test(flat_row(a, "a", NUMBERS), flat_row(b, "b", NUMBERS))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number by Holm's step-down method (1979), in the order given.

    Raises:
        InputError: for a p-value outside [0, 1].
    """
    return _core.holm([float(p_value) for p_value in p_values])
