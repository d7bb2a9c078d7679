"""evaluate: means, per-user values, intervals."""

import numpy as np
import pytest

from langptune_rs import evaluate
from langptune_rs.errors import InputError
from langptune_rs.evaluation import metrics

RANKS = np.random.default_rng(0).integers(1, 500, 1000)
METRICS = ["ndcg@20", "mrr@20", "recall@20", "precision@20", "ndcg"]


def test_means_are_those_of_the_users():
    result = evaluate(RANKS, METRICS)
    assert list(result.mean) == list(result.per_user) == METRICS
    assert result.num_users == 1000
    for metric in METRICS:
        np.testing.assert_array_equal(result.per_user[metric], metrics.from_ranks(RANKS, metric))
        assert result.mean[metric] == pytest.approx(result.per_user[metric].mean(), abs=1e-15)
        assert isinstance(result.mean[metric], float)


def test_per_user_values_cannot_be_changed_by_accident():
    result = evaluate(RANKS, ["mrr"])
    with pytest.raises(ValueError, match="read-only"):
        result.per_user["mrr"][0] = 1.0


def test_the_interval_holds_the_mean_and_follows_the_seed():
    result = evaluate(RANKS, METRICS)
    low, high = result.confidence_interval("ndcg")
    assert low < result.mean["ndcg"] < high
    assert (low, high) == result.confidence_interval("ndcg", seed=0)
    assert (low, high) != result.confidence_interval("ndcg", seed=1)
    wider = result.confidence_interval("ndcg", level=0.99)
    assert wider[0] < low
    assert high < wider[1]


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_all_intervals_at_once_are_those_of_one_by_one(method):
    result = evaluate(RANKS, METRICS)
    arguments = {"level": 0.9, "seed": 4, "method": method}
    one_by_one = {metric: result.confidence_interval(metric, **arguments) for metric in METRICS}
    assert result.confidence_intervals(**arguments) == one_by_one
    assert one_by_one != result.confidence_intervals(0.9, 5, method=method)


def test_a_result_prints_its_means():
    assert repr(evaluate([1, 2], ["mrr", "recall@1"])) == "Result(2 users: mrr 0.7500, recall@1 0.5000)"


@pytest.mark.parametrize(
    ("ranks", "names", "message"),
    [
        (RANKS, "ndcg@20", r'metrics = \'ndcg@20\': pass a list of names, such as \["ndcg@20", "mrr@20"\]'),
        (RANKS, [], r"metrics = \[\]"),
        ([], ["mrr"], r"ranks is empty: a mean needs at least one user"),
        (np.array([]), ["mrr"], r"ranks is empty"),
    ],
)
def test_bad_input(ranks, names, message):
    with pytest.raises(InputError, match=message):
        evaluate(ranks, names)


def test_a_metric_that_was_not_evaluated():
    with pytest.raises(InputError, match=r'"map" was not evaluated: .* there are mrr'):
        evaluate([1, 2], ["mrr"]).confidence_interval("map")
