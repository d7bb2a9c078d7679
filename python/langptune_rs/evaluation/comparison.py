"""Several methods on the same users, every pair tested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

from langptune_rs.errors import InputError
from langptune_rs.evaluation.result import Result
from langptune_rs.evaluation.significance import holm, paired_permutation_test
from langptune_rs.evaluation.tables import markdown_table


@dataclass(frozen=True)
class PairedTest:
    """One pair of methods.

    Attributes:
        difference: mean of `first` minus mean of `second`.
        p_value: of the paired permutation test, two-sided.
        p_adjusted: the same after Holm's correction over all pairs of the comparison.
    """

    first: str
    second: str
    difference: float
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class Comparison:
    """Methods on the same users. `str()` of it is a table in Markdown.

    Attributes:
        metric: what was compared.
        means: of each method.
        intervals: (low, high) of each method's mean, 95%.
        pairs: every pair in the order the methods were given.
    """

    metric: str
    means: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    pairs: tuple[PairedTest, ...]

    def pair(self, first: str, second: str) -> PairedTest:
        """The test of two methods, its difference as `first` minus `second`.

        Raises:
            InputError: for names that were not compared.
        """
        for test in self.pairs:
            if (test.first, test.second) == (first, second):
                return test
            if (test.second, test.first) == (first, second):
                return PairedTest(first, second, -test.difference, test.p_value, test.p_adjusted)
        raise InputError(f'"{first}" and "{second}" were not compared: there are {", ".join(self.means)}')

    def __str__(self) -> str:
        methods = [
            (name, f"{mean:.4f}", "{:.4f} to {:.4f}".format(*self.intervals[name])) for name, mean in self.means.items()
        ]
        pairs = [
            (
                f"{test.first} - {test.second}",
                f"{test.difference:+.4f}",
                f"{test.p_value:.2g}",
                f"{test.p_adjusted:.2g}",
            )
            for test in self.pairs
        ]
        return "\n\n".join(
            [
                markdown_table(("method", self.metric, "95% interval"), methods),
                markdown_table(("pair", "difference", "p", "p (Holm)"), pairs),
            ]
        )


def compare(
    results: Mapping[str, Result], *, metric: str, seed: int = 0, num_permutations: int = 100_000
) -> Comparison:
    """Tests every pair of methods by the paired permutation test, with Holm's correction over the pairs.

    Args:
        results: of each method, from `evaluate`, over the same users in the same order.
        metric: one that all of them hold, such as "ndcg@20".
        seed: of the permutations and the intervals.

    Raises:
        InputError: for fewer than two methods, a metric that one lacks, or different numbers of users.
    """
    if len(results) < 2:
        raise InputError(f"compare got {len(results)} method(s): pass at least two results by name")
    scores = {name: result.scores(metric) for name, result in results.items()}
    num_users = {name: len(values) for name, values in scores.items()}
    if len(set(num_users.values())) > 1:
        raise InputError(f"the methods have different numbers of users, {num_users}: evaluate all on the same users")
    names = list(combinations(results, 2))
    p_values = [
        paired_permutation_test(scores[first], scores[second], seed=seed, num_permutations=num_permutations)
        for first, second in names
    ]
    means = {name: result.mean[metric] for name, result in results.items()}
    pairs = tuple(
        PairedTest(first, second, means[first] - means[second], p_value, p_adjusted)
        for (first, second), p_value, p_adjusted in zip(names, p_values, holm(p_values), strict=True)
    )
    intervals = {name: result.confidence_interval(metric, seed=seed) for name, result in results.items()}
    return Comparison(metric, means, intervals, pairs)
