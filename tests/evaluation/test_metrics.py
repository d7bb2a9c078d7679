"""Metrics against their textbook definitions over a list of 0s and 1s, and against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score

from langptune_rs import Ragged
from langptune_rs.errors import InputError
from langptune_rs.evaluation import metrics

NUM_ITEMS = 40


def by_definition(name, k, ranks):
    """The metric computed over the list itself: relevance[i] of the item at rank i + 1."""
    relevance = np.zeros(NUM_ITEMS)
    relevance[np.array(ranks) - 1] = 1
    k = k or NUM_ITEMS
    head = relevance[:k]
    if name == "ndcg":
        discounts = 1 / np.log2(np.arange(2, NUM_ITEMS + 2))
        ideal = np.sort(relevance)[::-1][:k]
        return (head * discounts[: len(head)]).sum() / (ideal * discounts[: len(ideal)]).sum()
    if name == "mrr":
        return 1 / (1 + np.argmax(head)) if head.any() else 0.0
    if name == "recall":
        return head.sum() / relevance.sum()
    if name == "precision":
        return head.sum() / k
    if name == "hit_rate":
        return float(head.any())
    precisions = np.cumsum(head) / np.arange(1, len(head) + 1)
    return (precisions * head).sum() / relevance.sum()


rank_rows = st.lists(st.lists(st.integers(1, NUM_ITEMS), min_size=1, max_size=12, unique=True), min_size=1, max_size=20)


@given(rank_rows, st.sampled_from(metrics.METRICS), st.one_of(st.none(), st.integers(1, NUM_ITEMS)))
def test_metrics_follow_their_definitions(ranks, name, k):
    if name == "precision" and k is None:
        k = NUM_ITEMS
    found = metrics.from_ranks(ranks, name if k is None else f"{name}@{k}")
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [by_definition(name, k, row) for row in ranks], rtol=0, atol=1e-14)


@given(rank_rows, st.integers(1, NUM_ITEMS))
def test_metrics_are_those_of_scikit_learn(ranks, k):
    scores = -np.arange(NUM_ITEMS, dtype=float)
    for row, ndcg, average_precision in zip(
        ranks, metrics.from_ranks(ranks, f"ndcg@{k}"), metrics.from_ranks(ranks, "map"), strict=True
    ):
        relevance = np.zeros(NUM_ITEMS)
        relevance[np.array(row) - 1] = 1
        assert ndcg == pytest.approx(ndcg_score([relevance], [scores], k=k), abs=1e-12)
        assert average_precision == pytest.approx(average_precision_score(relevance, scores), abs=1e-12)


@pytest.mark.parametrize(
    ("metric", "score"),
    [
        ("ndcg", 1 / np.log2(5)),
        ("ndcg@3", 0),
        ("mrr@20", 0.25),
        ("recall@4", 1),
        ("precision@20", 0.05),
        ("hit_rate@3", 0),
        ("map@4", 0.25),
    ],
)
def test_one_relevant_item_at_rank_4(metric, score):
    for ranks in (
        [4],
        [4.0],
        np.array([4]),
        np.array([[4]]),
        [[4]],
        ([0, 1], [4]),
        Ragged(np.array([0, 1]), np.array([4])),
    ):
        assert metrics.from_ranks(ranks, metric).tolist() == [score]


def test_a_mean_rank_lies_between_its_neighbours():
    low, half, high = metrics.from_ranks([3.0, 2.5, 2.0], "ndcg@20")
    assert low < half < high


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        ("ndgc@20", r'"ndgc@20" is no metric; did you mean "ndcg"\?; there are ndcg, mrr'),
        ("NDCG@20", r'did you mean "ndcg"'),
        ("auc", r'"auc" is no metric; there are'),
        ("ndcg@", r'"ndcg@" is cut at "": a cut is a whole number from 1, as in "ndcg@20"'),
        ("ndcg@0", r'is cut at "0"'),
        ("ndcg@1" + 18 * "0", r'is cut at "1000000000000000000": .* below 10\^18'),
        ("ndcg@-5", r'is cut at "-5"'),
        ("ndcg@2.5", r'is cut at "2.5"'),
        ("precision", r'"precision" divides by the number of places: give it a cut, such as "precision@20"'),
        (20, r"metric 20 is a int"),
    ],
)
def test_bad_metrics(metric, message):
    with pytest.raises(InputError, match=message):
        metrics.from_ranks([1], metric)


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ([1, 0, 3], r"ranks row 1 holds 0: ranks start at 1"),
        ([1.0, 2.0, np.nan], r"ranks row 2 holds NaN"),
        ([[1, 2], [], [3]], r"ranks row 1 is empty: a user without a relevant item has no score"),
        ([[1, 2], [np.inf]], r"ranks row 1 holds inf"),
        (([0, 2], [1, 2, 3]), r"ranks offsets start at 0 and end at 2"),
        (["1", "2"], r"ranks row 0 has shape \(\)"),
        (np.array(["1"]), r"ranks holds values of type <U1: numbers are needed"),
    ],
)
def test_bad_ranks(ranks, message):
    with pytest.raises(InputError, match=message):
        metrics.from_ranks(ranks, "mrr")
