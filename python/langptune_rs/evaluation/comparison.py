"""Several methods on the same users, every pair tested."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Literal

from numpy.typing import ArrayLike

from langptune_rs.errors import InputError
from langptune_rs.evaluation.result import Result
from langptune_rs.evaluation.significance import bootstrap_intervals, holm, paired_permutation_test, paired_t_test
from langptune_rs.evaluation.tables import latex_table, markdown_table

Test = Literal["permutation", "t"]


@dataclass(frozen=True)
class PairedTest:
    """One pair of methods.

    Attributes:
        difference: mean of `first` minus mean of `second`.
        p_value: two-sided, by the comparison's paired test.
        p_adjusted: the same after Holm's correction over all pairs of the comparison.
    """

    first: str
    second: str
    difference: float
    p_value: float
    p_adjusted: float


@dataclass(frozen=True)
class Comparison:
    """Methods on the same users. `str()` of it is `to_markdown()`.

    >>> results = {"one": evaluate([1] * 50, ["mrr"]), "other": evaluate([2] * 50, ["mrr"])}
    >>> print(compare(results, metric="mrr"))
    | method |    mrr |     95% interval |
    |--------|-------:|-----------------:|
    | one    | 1.0000 | 1.0000 to 1.0000 |
    | other  | 0.5000 | 0.5000 to 0.5000 |
    <BLANKLINE>
    | pair        | difference |     p | p (Holm) |
    |-------------|-----------:|------:|---------:|
    | one - other |    +0.5000 | 1e-05 |    1e-05 |

    Attributes:
        metric: what was compared.
        means: the mean of each method.
        intervals: (low, high) of each method's mean, 95%.
        pairs: every pair in the order the methods were given.
        test: the paired test of the pairs, "permutation" or "t".
    """

    metric: str
    means: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    pairs: tuple[PairedTest, ...]
    test: Test

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

    def to_markdown(self) -> str:
        """The means with their intervals and the tests of the pairs, as two tables in Markdown."""
        return "\n\n".join(markdown_table(header, rows) for header, rows in self._tables())

    def to_latex(self) -> str:
        """The same as two LaTeX `tabular` environments, which need the package booktabs."""
        return "\n\n".join(latex_table(header, rows) for header, rows in self._tables())

    __str__ = to_markdown

    def _tables(self) -> list[tuple[Sequence[str], Sequence[Sequence[str]]]]:
        """(header, rows) of both tables, in plain text."""
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
        return [
            (("method", self.metric, "95% interval"), methods),
            (("pair", "difference", "p", "p (Holm)"), pairs),
        ]


def compare(
    results: Mapping[str, Result],
    *,
    metric: str,
    test: Test = "permutation",
    seed: int = 0,
    num_permutations: int = 100_000,
) -> Comparison:
    """Tests every pair of methods on the same users, with Holm's correction over the pairs.

    >>> results = {"one": evaluate([1, 1, 1, 1], ["mrr"]), "other": evaluate([2, 4, 1, 1], ["mrr"])}
    >>> compare(results, metric="mrr").pair("one", "other").p_value  # 2 of the 4 arrangements are as far apart
    0.5

    Args:
        results: by method name, what `evaluate` returns; all over the same users in the same order.
        metric: one that all results hold, such as "ndcg@20".
        test: "permutation" for `paired_permutation_test`, "t" for `paired_t_test`.
        seed: seeds the permutations and the intervals, a whole number from 0 to 2**64 - 1.
        num_permutations: permutations for each pair, at least 1.

    Raises:
        InputError: for anything but `Result`s by name, fewer than two methods, a metric that one of them lacks,
            different numbers of users, or another test; and as the test raises.
    """
    if not isinstance(results, Mapping):
        raise InputError(
            f'results is a {type(results).__name__}: pass results by name, such as {{"mine": evaluate(..)}}'
        )
    for name, result in results.items():
        if not isinstance(result, Result):
            raise InputError(f"results[{name!r}] is a {type(result).__name__}: pass what evaluate() returns")
    if len(results) < 2:
        raise InputError(f"compare got {len(results)} method(s): pass at least two results by name")
    scores = {name: result.scores(metric) for name, result in results.items()}
    num_users = {name: len(values) for name, values in scores.items()}
    if len(set(num_users.values())) > 1:
        raise InputError(f"the methods have different numbers of users, {num_users}: evaluate all on the same users")
    tests: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
        "permutation": partial(paired_permutation_test, seed=seed, num_permutations=num_permutations),
        "t": paired_t_test,
    }
    if str(test) not in tests:
        raise InputError(f'test = {test!r}: pass "permutation" or "t"')
    names = list(combinations(results, 2))
    p_values = [tests[str(test)](scores[first], scores[second]) for first, second in names]
    means = {name: result.mean[metric] for name, result in results.items()}
    pairs = tuple(
        PairedTest(first, second, means[first] - means[second], p_value, p_adjusted)
        for (first, second), p_value, p_adjusted in zip(names, p_values, holm(p_values), strict=True)
    )
    return Comparison(metric, means, bootstrap_intervals(scores, seed=seed), pairs, test)
