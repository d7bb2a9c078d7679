"""Intervals and p-values against scipy and exact enumeration."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from langptune_rs.errors import InputError
from langptune_rs.evaluation.significance import bootstrap_interval, holm, paired_permutation_test


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_is_that_of_scipy(level):
    scores = np.random.default_rng(0).beta(0.3, 2, 400)
    expected = stats.bootstrap(
        (scores,), np.mean, confidence_level=level, n_resamples=10_000, method="percentile", rng=1
    ).confidence_interval
    width = expected.high - expected.low
    np.testing.assert_allclose(bootstrap_interval(scores, level=level), expected, rtol=0, atol=0.04 * width)


def test_intervals_cover_the_true_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.random(60), level=0.9, num_resamples=500) for _ in range(400)]
    covered = np.mean([low <= 0.5 <= high for low, high in intervals])
    assert 0.84 < covered < 0.95


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 11), st.integers(0, 10_000))
def test_p_values_are_those_of_all_swaps(num_users, seed):
    rng = np.random.default_rng(seed)
    # Few distinct values: many swaps tie with the observed one, and rounding must not decide.
    a, b = rng.choice([0.0, 0.1, 0.3, 0.6309297535714575], (2, num_users))
    signs = 1 - 2 * ((np.arange(2**num_users)[:, None] >> np.arange(num_users)) & 1)
    exact = np.mean(np.abs(signs @ (a - b)) >= abs((a - b).sum()) - 1e-12)
    assert paired_permutation_test(a, b, num_permutations=2**num_users) == pytest.approx(exact, abs=1e-12)
    sampled = paired_permutation_test(a, b, seed=seed, num_permutations=2 ** (num_users - 1))
    assert sampled == pytest.approx(exact, abs=5 * np.sqrt(0.25 / 2 ** (num_users - 1)))


def test_p_values_are_those_of_scipy():
    rng = np.random.default_rng(0)
    a = rng.random(300)
    b = np.clip(a + rng.normal(0.01, 0.08, 300), 0, 1)
    expected = stats.permutation_test(
        (a, b), lambda x, y: np.mean(x - y), permutation_type="samples", n_resamples=5000, rng=1
    ).pvalue
    assert paired_permutation_test(a, b) == pytest.approx(expected, abs=0.02)


def test_p_values_are_uniform_when_nothing_differs():
    rng = np.random.default_rng(0)
    p_values = [paired_permutation_test(*rng.random((2, 40)), seed=seed, num_permutations=999) for seed in range(300)]
    assert stats.kstest(p_values, "uniform").pvalue > 0.001


def test_p_is_one_for_equal_scores_and_at_least_one_in_all_permutations():
    assert paired_permutation_test([0.5] * 9, [0.5] * 9) == 1.0
    assert paired_permutation_test(np.ones(100), np.zeros(100), num_permutations=999) == 0.001


def test_the_order_of_the_two_does_not_matter():
    a, b = np.random.default_rng(0).random((2, 50))
    assert paired_permutation_test(a, b) == paired_permutation_test(b, a)


@given(st.lists(st.floats(0, 1), max_size=12))
def test_holm_follows_its_definition(p_values):
    adjusted = holm(p_values)
    order = np.argsort(p_values, kind="stable")
    largest = 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - place)))
        assert adjusted[index] == pytest.approx(largest, abs=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), r"scores is empty"),
        (lambda: bootstrap_interval([0.1, np.nan]), r"scores row 1 is NaN"),
        (lambda: bootstrap_interval([[0.1]]), r"scores has shape \(1, 1\)"),
        (lambda: bootstrap_interval(["a"]), r"scores has shape \(1,\) and type <U1"),
        (lambda: bootstrap_interval([0.1], level=95), r"level = 95: a level lies between 0 and 1"),
        (lambda: bootstrap_interval([0.1], seed=-1), r"seed = -1: pass a whole number from 0"),
        (lambda: bootstrap_interval([0.1], num_resamples=0), r"num_resamples = 0"),
        (lambda: paired_permutation_test([0.1], [0.1, 0.2]), r"a has 1 scores and b has 2"),
        (lambda: paired_permutation_test([], []), r"a is empty"),
        (lambda: paired_permutation_test([0.1], [np.inf]), r"b row 0 is inf"),
        (lambda: paired_permutation_test([0.1], [0.2], num_permutations=1.5), r"num_permutations = 1.5"),
        (lambda: paired_permutation_test([0.1], [0.2], seed=2**64), r"seed = 18446744073709551616"),
        (lambda: holm([0.5, 1.5]), r"p_value = 1.5"),
        (lambda: holm([float("nan")]), r"p_value = NaN"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
