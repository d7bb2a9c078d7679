"""Measures of steering against scikit-learn, scipy and counting by hand."""

import doctest

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau, rankdata
from sklearn.metrics import roc_auc_score

from langptune_rs import ItemIndex
from langptune_rs.evaluation import steerability
from langptune_rs.evaluation.steerability import (
    exposures,
    mean_ranks,
    monotonicity,
    pool_aucs,
    right_signs,
    specificity,
    tag_aucs,
)

seeds = st.integers(0, 2**32 - 1)


def ranked(seed, num_rows=5, num_items=30, num_left_out=4, num_values=12):
    """Rankings with many ties, and the scores behind them: (items, scores of the items, scores by item, tags)."""
    random = np.random.default_rng(seed)
    by_item = random.integers(0, num_values, (num_rows, num_items)).astype(np.float64)
    kept = np.sort(random.permutation(num_items)[num_left_out:])
    order = np.argsort(-by_item[:, kept], axis=1, kind="stable")
    items = kept[order]
    tags = random.random((3, num_items)) < 0.4
    tags[:, kept[0]], tags[:, kept[1]] = True, False
    return items, np.take_along_axis(by_item, items, 1), by_item, tags


@given(seeds)
def test_ranks_are_those_of_scipy_with_ties_shared(seed):
    items, scores, by_item, _ = ranked(seed)
    ranks = mean_ranks(items, scores, by_item.shape[1])
    for row, own in enumerate(items):
        expected = np.zeros(by_item.shape[1])
        expected[own] = rankdata(-by_item[row, own])
        assert np.array_equal(ranks[row], expected)


@given(seeds)
def test_auc_is_that_of_scikit_learn_over_the_items_that_are_ranked(seed):
    items, scores, by_item, tags = ranked(seed)
    aucs = tag_aucs(mean_ranks(items, scores, by_item.shape[1]), tags)
    for row, own in enumerate(items):
        for number, tag in enumerate(tags):
            assert aucs[row, number] == pytest.approx(roc_auc_score(tag[own], by_item[row, own]), abs=1e-14)


@given(seeds)
def test_auc_of_a_pool_is_that_of_scikit_learn_over_the_pool(seed):
    items, scores, by_item, tags = ranked(seed)
    random = np.random.default_rng(seed)
    tagged, others = (random.permutation(np.intersect1d(items[0], np.flatnonzero(x)))[:6] for x in (tags[0], ~tags[0]))
    aucs = pool_aucs(mean_ranks(items, scores, by_item.shape[1]), tagged, others)
    pool = np.concatenate([tagged, others])
    for row in range(len(items)):
        expected = roc_auc_score(tags[0, pool], by_item[row, pool])
        assert aucs[row] == pytest.approx(expected, abs=1e-14)


def test_a_tag_of_all_or_of_none_has_no_auc():
    items, scores, by_item, _ = ranked(0)
    tags = np.stack([np.ones(by_item.shape[1], dtype=bool), np.zeros(by_item.shape[1], dtype=bool)])
    assert np.isnan(tag_aucs(mean_ranks(items, scores, by_item.shape[1]), tags)).all()


def test_the_rows_of_a_search_are_taken_as_they_are():
    random = np.random.default_rng(0)
    index = ItemIndex(random.standard_normal((50, 8)).astype(np.float32))
    users = random.standard_normal((4, 8)).astype(np.float32)
    scores, items = index.search(users, 47, exclude=np.tile([3, 7, 9], (4, 1)))
    tags = random.random((2, 50)) < 0.3
    kept = np.setdiff1d(np.arange(50), [3, 7, 9])
    exact = (users.astype(np.float64) @ index.item_embeddings.T.astype(np.float64))[:, kept]
    aucs = tag_aucs(mean_ranks(items, scores, 50), tags)
    for row in range(4):
        for number in range(2):
            assert aucs[row, number] == pytest.approx(roc_auc_score(tags[number, kept], exact[row]), abs=1e-14)


@given(seeds, st.integers(1, 20))
def test_exposure_counts_the_first_items(seed, k):
    items, _, _, tags = ranked(seed)
    found = exposures(items, tags, k)
    for row, own in enumerate(items):
        assert found[row].tolist() == pytest.approx([sum(tag[i] for i in own[:k]) / k for tag in tags])


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6, unique=True))
def test_monotonicity_is_kendalls_tau_against_the_order(effects):
    expected = kendalltau(np.arange(len(effects)), effects).statistic
    assert monotonicity(np.array(effects)) == pytest.approx(expected, abs=1e-12)


def test_strength_that_does_nothing_is_not_monotone():
    assert monotonicity(np.zeros((2, 4))).tolist() == [0.0, 0.0]
    assert monotonicity(np.array([0.0, 0.1, 0.1, 0.1])) == pytest.approx(0.5)


def test_signs_and_specificity_of_nothing_are_those_of_chance():
    assert right_signs(np.array([0.0])).tolist() == [0.5]
    assert specificity(np.array([0.0]), np.array([0.0])).tolist() == [1.0]
    assert np.isnan(specificity(np.array([0.0]), np.array([0.1]))).all()


def test_the_examples_are_true():
    assert doctest.testmod(steerability, extraglobs={"np": np}).failed == 0
