"""The scores of one method: means, every user's value, and confidence intervals of the means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langptune_rs import _core
from langptune_rs.arrays import Rows
from langptune_rs.errors import InputError
from langptune_rs.evaluation import metrics as ranking_metrics
from langptune_rs.evaluation.significance import IntervalMethod, bootstrap_interval, bootstrap_intervals


@dataclass(frozen=True, eq=False)
class Result:
    """Metrics of one method.

    >>> result = evaluate([1, 2, 40], ["recall@20"])
    >>> result.mean, result.per_user["recall@20"].tolist()
    ({'recall@20': 0.6666666666666666}, [1.0, 1.0, 0.0])

    Attributes:
        mean: the mean of each metric over all users.
        per_user: each user's value of each metric, float64 (n_users,), in the order of the ranks; read-only.
    """

    mean: dict[str, float]
    per_user: dict[str, NDArray[np.float64]]

    @property
    def num_users(self) -> int:
        """Number of users, each of whom counts once."""
        return len(next(iter(self.per_user.values())))

    def confidence_interval(
        self, metric: str, level: float = 0.95, seed: int = 0, *, method: IntervalMethod = "percentile"
    ) -> tuple[float, float]:
        """(low, high) of the mean, by the bootstrap over users with 10,000 resamples (Efron, 1979 and 1987).

        The number of threads does not change the interval.

        >>> low, high = evaluate([1, 2, 3, 4] * 100, ["mrr"]).confidence_interval("mrr")
        >>> low < (1 + 1 / 2 + 1 / 3 + 1 / 4) / 4 < high
        True

        Args:
            metric: one that was evaluated.
            level, seed, method: as in `bootstrap_interval`.

        Raises:
            InputError: for a metric that was not evaluated, a level outside (0, 1), or another method.
        """
        return bootstrap_interval(self.scores(metric), level=level, seed=seed, method=method)

    def confidence_intervals(
        self, level: float = 0.95, seed: int = 0, *, method: IntervalMethod = "percentile"
    ) -> dict[str, tuple[float, float]]:
        """`confidence_interval` of every metric, all from the same draws.

        >>> list(evaluate([1, 2, 3, 4], ["mrr", "recall@2"]).confidence_intervals())
        ['mrr', 'recall@2']

        Args:
            level, seed, method: as in `bootstrap_interval`.

        Raises:
            InputError: for a level outside (0, 1), or another method.
        """
        return bootstrap_intervals(self.per_user, level=level, seed=seed, method=method)

    def scores(self, metric: str) -> NDArray[np.float64]:
        """Every user's value of a metric, float64 (n_users,).

        Raises:
            InputError: for a metric that was not evaluated.
        """
        if not isinstance(metric, str) or metric not in self.per_user:
            raise InputError(f'"{metric}" was not evaluated: pass it to evaluate(); there are {", ".join(self.mean)}')
        return self.per_user[metric]

    def __repr__(self) -> str:
        means = ", ".join(f"{metric} {mean:.4f}" for metric, mean in self.mean.items())
        return f"Result({self.num_users} users: {means})"


def evaluate(ranks: Rows, metrics: Sequence[str]) -> Result:
    """Metrics from ranks, by the formulas of trec_eval. With one target a user they are those of the paper's section 5.

    >>> evaluate([1, 3, 40], ["ndcg@20", "mrr"])
    Result(3 users: ndcg@20 0.5000, mrr 0.4528)
    >>> evaluate([[1, 2], [4]], ["precision@2"])  # two relevant items for one user, one for the other
    Result(2 users: precision@2 0.5000)

    Args:
        ranks: what `ItemIndex.rank` returns, one or several ranks per user.
        metrics: names such as "ndcg@20", "mrr@20", "recall@20", "precision@20", "hit_rate@5", "map", "ndcg"; see
            `langptune_rs.evaluation.metrics` for their formulas.

    Raises:
        InputError: for no users or no metrics, an unknown metric, and as `from_ranks`.
    """
    if not isinstance(metrics, Sequence) or isinstance(metrics, str) or not metrics:
        raise InputError(f'metrics = {metrics!r}: pass a list of names, such as ["ndcg@20", "mrr@20"]')
    parsed = {metric: ranking_metrics.parse(metric) for metric in metrics}
    scores = ranking_metrics.per_user(ranks, list(parsed.values()))
    if scores.size == 0:
        raise InputError("ranks is empty: a mean needs at least one user")
    scores.flags.writeable = False
    per_user = dict(zip(parsed, scores, strict=True))
    return Result({metric: _core.mean(values) for metric, values in per_user.items()}, per_user)
