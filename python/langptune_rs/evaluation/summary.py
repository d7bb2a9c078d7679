"""From ranks to what is reported for a method: means, intervals and p-values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from langptune_rs.evaluation.result import Result, evaluate
from langptune_rs.evaluation.significance import holm, paired_permutation_test


def metric_names(k: int) -> list[str]:
    """The paper's four metrics cut at k, and NDCG over the whole ranking, which is the reward."""
    return [f"ndcg@{k}", f"mrr@{k}", f"recall@{k}", f"precision@{k}", "ndcg"]


def score_sessions(ranks_NS: np.ndarray, metrics: Sequence[str]) -> Result:
    """Metrics of N sessions with S ranked profiles each; a session's score is the mean over its profiles.

    `ranks_NS` is int64 (N, S). Every session counts once, however many profiles it has.
    """
    result = evaluate(ranks_NS.reshape(-1), metrics)
    per_session = {metric: result.scores(metric).reshape(ranks_NS.shape).mean(axis=1) for metric in metrics}
    return Result(result.mean, per_session)


def summarize(methods: Mapping[str, Result], baseline: Result) -> dict[str, dict[str, dict[str, float | None]]]:
    """{method: {metric: {"mean", "low", "high", "p_value", "p_holm"}}}.

    `low` and `high` are the 95% bootstrap interval, `p_value` is the paired permutation test against `baseline` and
    `p_holm` the same after Holm's correction over the methods given; both are None for `baseline` itself.
    """
    table: dict[str, dict[str, dict[str, float | None]]] = {name: {} for name in methods}
    rivals = [name for name, result in methods.items() if result is not baseline]
    for metric in baseline.mean:
        p_values = [paired_permutation_test(methods[name].scores(metric), baseline.scores(metric)) for name in rivals]
        tests = dict(zip(rivals, zip(p_values, holm(p_values), strict=True), strict=True))
        for name, result in methods.items():
            low, high = result.confidence_interval(metric)
            p_value, p_holm = tests.get(name, (None, None))
            table[name][metric] = {
                "mean": result.mean[metric],
                "low": low,
                "high": high,
                "p_value": p_value,
                "p_holm": p_holm,
            }
    return table
