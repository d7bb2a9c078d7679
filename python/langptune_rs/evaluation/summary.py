"""From ranks to what is reported for a method: means, intervals and p-values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langptune_rs.evaluation.result import Result, evaluate
from langptune_rs.evaluation.significance import bootstrap_intervals, holm, paired_permutation_test

LOG_LIKELIHOOD = "log_likelihood"
"""The metric ln softmax(similarity / LIKELIHOOD_TEMPERATURE) of the target, over all items outside the history.

It sees every change of the similarities, where NDCG@k sees only those that move a target into or within the first k.
"""
LIKELIHOOD_TEMPERATURE = 0.07
"""What similarities are divided by in the log-likelihood, whatever a run trains with, so that runs can be compared."""
LOG_RANK = "log_rank"
"""The metric ln rank of the target. It tells rank 200 from rank 400, which NDCG@k counts as equal."""
LOWER_IS_BETTER = frozenset({LOG_RANK})
SIGNIFICANT = 0.05
"""Where a text says that two methods differ, the p of their paired test is below this."""


def metric_names(k: int) -> list[str]:
    """The paper's four metrics cut at k, NDCG over the whole ranking, log-likelihood, and log-rank."""
    return [f"ndcg@{k}", f"mrr@{k}", f"recall@{k}", f"precision@{k}", "ndcg", LOG_LIKELIHOOD, LOG_RANK]


def score_sessions(ranks_NS: NDArray[np.int64], log_probs_NS: NDArray[np.float64] | None, k: int) -> Result:
    """The metrics of `metric_names` for N sessions ranked S times; a session's score is the mean over its rankings.

    Every session counts once, however many rankings it has. Without `log_probs_NS` there is no log-likelihood.
    """
    of_ranks = [metric for metric in metric_names(k) if metric not in (LOG_LIKELIHOOD, LOG_RANK)]
    scores = dict(evaluate(ranks_NS.reshape(-1), of_ranks).per_user)
    if log_probs_NS is not None:
        scores[LOG_LIKELIHOOD] = log_probs_NS.reshape(-1)
    scores[LOG_RANK] = np.log(ranks_NS.reshape(-1))
    per_session = {metric: values.reshape(ranks_NS.shape).mean(axis=1) for metric, values in scores.items()}
    return Result({metric: float(values.mean()) for metric, values in per_session.items()}, per_session)


def summarize(methods: Mapping[str, Result], baseline: Result, users: ArrayLike) -> dict[str, dict[str, Any]]:
    """{method: {metric: {"mean", "low", "high", "p_value", "p_holm"}}}.

    `low` and `high` are the 95% bootstrap interval, `p_value` is the paired permutation test against `baseline` and
    `p_holm` the same after Holm's correction over the methods given; both are None for `baseline` itself. Sessions of
    one of the `users`, (n_sessions,), are drawn and swapped together. A metric that a method lacks is None.
    """
    table: dict[str, dict[str, Any]] = {}
    for name, result in methods.items():
        intervals = bootstrap_intervals(result.per_user, clusters=users)
        table[name] = {
            metric: {"mean": result.mean[metric], "low": low, "high": high, "p_value": None, "p_holm": None}
            for metric, (low, high) in intervals.items()
        }
    for metric in baseline.mean:
        rivals = [name for name, result in methods.items() if result is not baseline and metric in result.mean]
        others = (methods[name].scores(metric) for name in rivals)
        p_values = [paired_permutation_test(scores, baseline.scores(metric), clusters=users) for scores in others]
        for name, p_value, p_holm in zip(rivals, p_values, holm(p_values), strict=True):
            table[name][metric].update(p_value=p_value, p_holm=p_holm)
    return {name: {metric: scores.get(metric) for metric in baseline.mean} for name, scores in table.items()}


def mean_text(numbers: Mapping[str, Any] | None) -> str:
    """A metric's mean with its interval; a dash for a metric that a method lacks."""
    return "–" if numbers is None else f"{numbers['mean']:.4f} [{numbers['low']:.4f}, {numbers['high']:.4f}]"


def compare_sessions(
    scores: Mapping[str, Mapping[str, NDArray[np.float64]]], pairs: Iterable[tuple[str, str]], users: ArrayLike
) -> list[dict[str, Any]]:
    """One row for each pair and each metric that both have.

    A row is {"method", "other", "metric", "difference", "interval", "p"}. `difference` is the mean over sessions of
    `method` less `other`, `interval` its 95% bootstrap interval as [low, high], and `p` that of the paired permutation
    test. Sessions of one of the `users`, (n_sessions,), are drawn and swapped together: they are not independent.

    Args:
        scores: {method: {metric: (n_sessions,)}} of the same sessions in the same order.
        pairs: (method, other).
        users: the user of each session.
    """
    rows = []
    for method, other in pairs:
        shared = [metric for metric in scores[method] if metric in scores[other]]
        differences = {metric: scores[method][metric] - scores[other][metric] for metric in shared}
        intervals = bootstrap_intervals(differences, clusters=users)
        rows += [
            {
                "method": method,
                "other": other,
                "metric": metric,
                "difference": float(differences[metric].mean()),
                "interval": list(intervals[metric]),
                "p": paired_permutation_test(scores[method][metric], scores[other][metric], clusters=users),
            }
            for metric in shared
        ]
    return rows


def with_holm(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows, such as those of `compare_sessions`, each with "p_holm": its p after Holm's correction (1979).

    The correction is over all `rows` of the same metric.
    """
    of_metric: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        of_metric.setdefault(row["metric"], []).append(place)
    corrected = {
        place: p_holm
        for places in of_metric.values()
        for place, p_holm in zip(places, holm([rows[place]["p"] for place in places]), strict=True)
    }
    return [{**row, "p_holm": corrected[place]} for place, row in enumerate(rows)]
