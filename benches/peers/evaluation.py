"""Metrics and their uncertainty beside what people use today: python benches/peers/evaluation.py --threads 2.

Needs ranx and pytrec-eval-terrier. Every library starts from what it calls prepared, with runs as short as the cut
allows: ranx from its Qrels and Run, pytrec_eval from an evaluator and a dictionary, this one from ranks.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from langptune_rs import evaluate
from langptune_rs.evaluation.significance import bootstrap_intervals, paired_permutation_test, paired_t_test

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import ROUNDS, time_side_by_side

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
def ranks(num_users: int, seed: int = 0) -> np.ndarray:
    """The rank of each user's item: about one in five is among the first 20."""
    return np.random.default_rng(seed).geometric(0.01, num_users)


@functools.cache
def scores() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The metrics of two methods on the test users, by their formulas for one relevant item."""
    return by_formula(ranks(NUM_TEST_USERS)), by_formula(ranks(NUM_TEST_USERS, seed=1))


def by_formula(ranks: np.ndarray) -> dict[str, np.ndarray]:
    found = ranks <= K
    values = (found / np.log2(1 + ranks), found / ranks, found.astype(float), found / K)
    return dict(zip(METRICS, values, strict=True))


def dictionaries() -> tuple[dict, dict]:
    """(qrels, run) by user, whose names sort as their numbers do."""
    users = [f"{user:06}" for user in range(NUM_TRAINING_USERS)]
    qrels = {user: {"target": 1} for user in users}
    run = {
        user: {("target" if place == rank else f"item{place}"): float(-place) for place in range(1, K + 1)}
        for user, rank in zip(users, ranks(NUM_TRAINING_USERS).tolist(), strict=True)
    }
    return qrels, run


def ours():
    of_users = ranks(NUM_TRAINING_USERS)
    return lambda: evaluate(of_users, METRICS).per_user


def ranx_evaluate(**arguments):
    import ranx

    qrels, run = dictionaries()
    qrels, run = ranx.Qrels(qrels), ranx.Run(run)
    return lambda: ranx.evaluate(qrels, run, METRICS, **arguments)


def trec_eval():
    import pytrec_eval

    qrels, run = dictionaries()
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {f"ndcg_cut.{K}", "recip_rank", f"recall.{K}", f"P.{K}"})
    return lambda: evaluator.evaluate(run)


def intervals(method):
    of_metrics = scores()[0]
    return lambda: list(bootstrap_intervals(of_metrics, method=method, num_resamples=NUM_RESAMPLES).values())


def numpy_intervals():
    of_metrics, rng = np.stack(list(scores()[0].values())), np.random.default_rng(0)

    def work():
        drawn = rng.integers(0, NUM_TEST_USERS, (NUM_RESAMPLES, NUM_TEST_USERS), dtype=np.int32)
        return [tuple(np.quantile(of_users[drawn].mean(axis=1), [0.025, 0.975])) for of_users in of_metrics]

    return work


def p_value(test):
    a, b = (of_metrics[METRICS[0]] for of_metrics in scores())
    return lambda: test(a, b)


def numpy_permutation_test(a, b, at_once=2_000):
    differences, rng = a - b, np.random.default_rng(0)
    extreme = abs(differences.sum()) - 1e-12
    count = 0
    for _ in range(0, NUM_PERMUTATIONS, at_once):
        signs = 1.0 - 2.0 * rng.integers(0, 2, (at_once, NUM_TEST_USERS), dtype=np.int8)
        count += np.count_nonzero(np.abs(signs @ differences) >= extreme)
    return (1 + count) / (1 + NUM_PERMUTATIONS)


CONTENDERS = {
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
    """Metrics equal to their formulas to 1e-12; intervals and p-values equal to the normal approximation's nearly."""
    if name.startswith("pytrec_eval"):
        result = {metric: [of_user[trec] for of_user in result.values()] for metric, trec in TREC_METRICS.items()}
    if isinstance(result, dict):
        for metric, expected in by_formula(ranks(NUM_TRAINING_USERS)).items():
            wanted = np.mean(expected) if np.ndim(result[metric]) == 0 else expected
            assert np.abs(result[metric] - wanted).max() < 1e-12, (name, metric)
    elif isinstance(result, list):
        for of_users, interval in zip(scores()[0].values(), result, strict=True):
            half = 1.96 * of_users.std() / np.sqrt(NUM_TEST_USERS)
            wanted = of_users.mean() - half, of_users.mean() + half
            assert np.abs(np.subtract(interval, wanted)).max() < 0.15 * half, name
    else:
        a, b = (of_metrics[METRICS[0]] for of_metrics in scores())
        assert abs(result - paired_t_test(a, b)) < 0.01, name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    contenders = {name: (work, {}) for name, work in CONTENDERS.items()}
    seconds = time_side_by_side(contenders, check, threads=arguments.threads, rounds=arguments.rounds)
    print(json.dumps(seconds, indent=2))
