"""Metrics and their uncertainty compared with other libraries: python benches/peers/evaluation.py --threads 2.

Needs ranx and pytrec-eval-terrier. Every library starts from its own prepared input, with runs as short as the cutoff
allows: ranx from its Qrels and Run, pytrec_eval from an evaluator and a dictionary, this one from ranks.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from langptune_rs import evaluate
from langptune_rs.evaluation.significance import bootstrap_intervals, paired_permutation_test, paired_t_test

sys.path.insert(0, str(Path(__file__).parents[1]))
from peers.side_by_side import Prepare, Work, argument_parser, time_side_by_side

Metrics = dict[str, NDArray[np.float64]]
"""Each metric of every user."""
PairedTest = Callable[[NDArray[np.float64], NDArray[np.float64]], float]
K = 20
METRICS = [f"ndcg@{K}", f"mrr@{K}", f"recall@{K}", f"precision@{K}"]
TREC_METRICS = {
    f"ndcg@{K}": f"ndcg_cut_{K}",
    f"mrr@{K}": "recip_rank",
    f"recall@{K}": f"recall_{K}",
    f"precision@{K}": f"P_{K}",
}
NUM_TRAINING_USERS, NUM_TEST_USERS = 14_698, 1_392
NUM_RESAMPLES, NUM_PERMUTATIONS = 10_000, 100_000


@functools.cache
def ranks(num_users: int, seed: int = 0) -> NDArray[np.int64]:
    """The rank of each user's item, (num_users,): about one in five is among the first 20."""
    return np.random.default_rng(seed).geometric(0.01, num_users)


@functools.cache
def scores() -> tuple[Metrics, Metrics]:
    """The metrics of two methods on the test users, by their formulas for one relevant item."""
    return by_formula(ranks(NUM_TEST_USERS)), by_formula(ranks(NUM_TEST_USERS, seed=1))


def by_formula(ranks: NDArray[np.int64]) -> Metrics:
    """The metrics for one relevant item at these ranks."""
    found = ranks <= K
    values = (found / np.log2(1 + ranks), found / ranks, found.astype(float), found / K)
    return dict(zip(METRICS, values, strict=True))


def dictionaries() -> tuple[dict[str, dict[str, int]], dict[str, dict[str, float]]]:
    """(qrels, run) by user; the users' names sort like their numbers."""
    users = [f"{user:06}" for user in range(NUM_TRAINING_USERS)]
    qrels = {user: {"target": 1} for user in users}
    run = {
        user: {("target" if place == rank else f"item{place}"): float(-place) for place in range(1, K + 1)}
        for user, rank in zip(users, ranks(NUM_TRAINING_USERS).tolist(), strict=True)
    }
    return qrels, run


def ours() -> Work:
    """`langptune_rs.evaluate`."""
    user_ranks = ranks(NUM_TRAINING_USERS)
    return lambda: evaluate(user_ranks, METRICS).per_user


def ranx_evaluate(**arguments: bool) -> Work:
    """ranx's `evaluate`."""
    import ranx

    qrels, run = dictionaries()
    ranx_qrels, ranx_run = ranx.Qrels(qrels), ranx.Run(run)
    return lambda: ranx.evaluate(ranx_qrels, ranx_run, METRICS, **arguments)


def trec_eval() -> Work:
    """pytrec_eval's evaluator."""
    import pytrec_eval

    qrels, run = dictionaries()
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {f"ndcg_cut.{K}", "recip_rank", f"recall.{K}", f"P.{K}"})
    return lambda: evaluator.evaluate(run)


def intervals(method: Literal["percentile", "bca"]) -> Work:
    """`bootstrap_intervals` of this package."""
    metrics = scores()[0]
    return lambda: list(bootstrap_intervals(metrics, method=method, num_resamples=NUM_RESAMPLES).values())


def numpy_intervals() -> Work:
    """Percentile intervals in numpy."""
    metrics, rng = np.stack(list(scores()[0].values())), np.random.default_rng(0)

    def work() -> list[tuple[float, ...]]:
        drawn = rng.integers(0, NUM_TEST_USERS, (NUM_RESAMPLES, NUM_TEST_USERS), dtype=np.int32)
        return [tuple(np.quantile(per_user[drawn].mean(axis=1), [0.025, 0.975])) for per_user in metrics]

    return work


def p_value(test: PairedTest) -> Work:
    """A paired test of two methods by the first metric."""
    a, b = (metrics[METRICS[0]] for metrics in scores())
    return lambda: test(a, b)


def numpy_permutation_test(a: NDArray[np.float64], b: NDArray[np.float64], batch_size: int = 2_000) -> float:
    """The paired permutation test in numpy."""
    differences, rng = a - b, np.random.default_rng(0)
    extreme = abs(differences.sum()) - 1e-12
    count = 0
    for _ in range(0, NUM_PERMUTATIONS, batch_size):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (batch_size, NUM_TEST_USERS), dtype=np.int8)
        count += int(np.count_nonzero(np.abs(signs @ differences) >= extreme))
    return (1 + count) / (1 + NUM_PERMUTATIONS)


CONTENDERS: dict[str, Prepare] = {
    "langptune: evaluate": ours,
    "ranx: evaluate": ranx_evaluate,
    "ranx: evaluate, values of users alone": functools.partial(
        ranx_evaluate, return_mean=False, save_results_in_run=False
    ),
    "pytrec_eval: evaluator": trec_eval,
    "langptune: 4 percentile intervals": functools.partial(intervals, "percentile"),
    "langptune: 4 BCa intervals": functools.partial(intervals, "bca"),
    "numpy: 4 percentile intervals": numpy_intervals,
    "langptune: permutation test": functools.partial(p_value, paired_permutation_test),
    "langptune: t-test": functools.partial(p_value, paired_t_test),
    "numpy: permutation test": functools.partial(p_value, numpy_permutation_test),
}


def check(name: str, result: Any) -> None:
    """Assert that metrics equal their formulas to 1e-12, and intervals and p-values nearly the normal approximation."""
    if name.startswith("pytrec_eval"):
        result = {metric: [per_user[trec] for per_user in result.values()] for metric, trec in TREC_METRICS.items()}
    if isinstance(result, dict):
        for metric, expected in by_formula(ranks(NUM_TRAINING_USERS)).items():
            wanted = np.mean(expected) if np.ndim(result[metric]) == 0 else expected
            assert np.abs(result[metric] - wanted).max() < 1e-12, (name, metric)
    elif isinstance(result, list):
        for per_user, interval in zip(scores()[0].values(), result, strict=True):
            half = 1.96 * per_user.std() / np.sqrt(NUM_TEST_USERS)
            bounds = per_user.mean() - half, per_user.mean() + half
            assert np.abs(np.subtract(interval, bounds)).max() < 0.15 * half, name
    else:
        a, b = (metrics[METRICS[0]] for metrics in scores())
        assert abs(result - paired_t_test(a, b)) < 0.01, name


if __name__ == "__main__":
    arguments = argument_parser(__doc__).parse_args()
    contenders: dict[str, tuple[Prepare, dict[str, str]]] = {name: (work, {}) for name, work in CONTENDERS.items()}
    seconds = time_side_by_side(contenders, check, threads=arguments.threads, rounds=arguments.rounds)
    print(json.dumps(seconds, indent=2))
