"""Intervals and p-values against scipy, exact enumeration and the same draws made in Python."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from langptune_rs.errors import InputError
from langptune_rs.evaluation.significance import (
    bootstrap_interval,
    bootstrap_intervals,
    holm,
    paired_permutation_test,
    paired_t_test,
)


def resampled_means(scores, seed, num_resamples):
    """The means of the documented draws: SplitMix64 with a stream for each resample, scaled by its upper 64 bits."""
    mask, gamma = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(value):
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & mask
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & mask
        return value ^ (value >> 31)

    def draws(state):
        for _ in scores:
            state = (state + gamma) & mask
            yield (mix(state) * len(scores)) >> 64

    start = mix((seed + gamma) & mask)
    states = (mix(start ^ ((resample * gamma) & mask)) for resample in range(num_resamples))
    return np.array([np.mean([scores[at] for at in draws(state)]) for state in states])


def bca_by_definition(scores, means, level):
    """Efron (1987), with the jackknife done by leaving every user out."""
    below, equal = np.mean(means < scores.mean() - 1e-12), np.mean(np.abs(means - scores.mean()) <= 1e-12)
    z0 = stats.norm.ppf(below + equal / 2)
    jackknife = np.array([np.delete(scores, user).mean() for user in range(len(scores))])
    gaps = jackknife.mean() - jackknife
    acceleration = (gaps**3).sum() / (6 * (gaps**2).sum() ** 1.5)
    z = stats.norm.ppf([(1 - level) / 2, (1 + level) / 2])
    return np.quantile(means, stats.norm.cdf(z0 + (z0 + z) / (1 - acceleration * (z0 + z))))


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
@pytest.mark.parametrize(
    "scores", [np.random.default_rng(1).beta(0.3, 2, 30), np.repeat([0.0, 1.0], [20, 3])], ids=["skewed", "tied"]
)
def test_intervals_are_those_of_their_definitions_over_the_same_draws(scores, level):
    means = resampled_means(scores, 7, 400)
    arguments = {"level": level, "seed": 7, "num_resamples": 400}
    percentiles = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    np.testing.assert_allclose(bootstrap_interval(scores, **arguments), percentiles, rtol=0, atol=1e-13)
    bca = bca_by_definition(scores, means, level)
    np.testing.assert_allclose(bootstrap_interval(scores, method="bca", **arguments), bca, rtol=0, atol=1e-12)


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_interval_is_that_of_scipy(level, method):
    scores = np.random.default_rng(0).beta(0.3, 2, 400)
    expected = stats.bootstrap(
        (scores,), np.mean, confidence_level=level, n_resamples=10_000, method=method, rng=1
    ).confidence_interval
    width = expected.high - expected.low
    found = bootstrap_interval(scores, level=level, method=method)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.04 * width)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_intervals_cover_the_true_mean_as_often_as_they_say(method):
    rng = np.random.default_rng(0)
    intervals = [bootstrap_interval(rng.random(60), level=0.9, num_resamples=500, method=method) for _ in range(400)]
    covered = np.mean([low <= 0.5 <= high for low, high in intervals])
    assert 0.84 < covered < 0.95


def test_bca_covers_the_mean_of_skewed_scores_more_often():
    rng = np.random.default_rng(0)
    samples = rng.lognormal(0, 1, (1000, 20))
    covered = {
        method: np.mean([low <= np.exp(0.5) <= high for low, high in (interval(sample) for sample in samples)])
        for method in ("percentile", "bca")
        for interval in [lambda sample, method=method: bootstrap_interval(sample, num_resamples=500, method=method)]
    }
    assert covered["percentile"] + 0.01 < covered["bca"] < 0.95


@pytest.mark.parametrize("method", ["percentile", "bca"])
@pytest.mark.parametrize("scores", [[0.1] * 7, [0.3], [0.0] * 50])
def test_equal_scores_leave_no_doubt(scores, method):
    low, high = bootstrap_interval(scores, method=method)
    assert low == high == pytest.approx(scores[0], abs=1e-15)


def test_bca_of_one_user_in_a_thousand_with_a_score():
    scores = [1.0] + [0.0] * 999
    low, high = bootstrap_interval(scores, method="bca")
    assert 0 <= low < 0.001 < high < 0.01
    extreme = bootstrap_interval(scores, method="bca", level=1 - 1e-12)
    assert extreme[0] == 0
    assert extreme[1] > high


@settings(deadline=None, max_examples=200)
@given(st.integers(2, 3000), st.floats(-8, 8), st.integers(0, 10_000))
def test_t_tests_are_those_of_scipy(num_users, shift, seed):
    rng = np.random.default_rng(seed)
    a = rng.random(num_users)
    b = a + rng.normal(shift / np.sqrt(num_users), 1, num_users)
    expected = stats.ttest_rel(a, b).pvalue
    assert paired_t_test(a, b) == pytest.approx(expected, rel=2e-12)
    assert paired_t_test(b, a) == paired_t_test(a, b)


def test_t_tests_keep_their_digits_far_out():
    """Against mpmath with 50 digits: scipy's own last digits are not the judge here."""
    with mpmath.workdps(50):
        for num_users, shift in [(2, 30.0), (5, 0.01), (40, 5.0), (1392, 0.4), (14_698, 0.2), (100_000, 0.02)]:
            differences = shift + np.where(np.arange(num_users) % 2, 1.0, -1.0)
            exact = [mpmath.mpf(float(value)) for value in np.unique(differences)]
            counts = np.unique(differences, return_counts=True)[1].tolist()
            mean = mpmath.fdot(exact, counts) / num_users
            variance = mpmath.fdot([(value - mean) ** 2 for value in exact], counts) / (num_users - 1)
            t_squared = mean**2 * num_users / variance
            x = (num_users - 1) / (num_users - 1 + t_squared)
            expected = mpmath.betainc(mpmath.mpf(num_users - 1) / 2, 0.5, 0, x, regularized=True)
            assert paired_t_test(differences, np.zeros(num_users)) == pytest.approx(float(expected), rel=1e-12, abs=0)


def test_a_t_test_of_users_who_do_not_differ():
    assert paired_t_test([0.5, 0.2, 0.9], [0.5, 0.2, 0.9]) == 1.0
    assert paired_t_test([0.5], [0.5]) == 1.0


def test_t_tests_and_permutation_tests_agree_on_many_users():
    rng = np.random.default_rng(0)
    a = rng.random(1000)
    b = np.clip(a + rng.normal(0.004, 0.08, 1000), 0, 1)
    assert paired_t_test(a, b) == pytest.approx(paired_permutation_test(a, b), abs=0.005)


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


CLUSTERS = ["ann", "bob", "ann", "cid", "bob", "ann", "dan", "eve", "eve"]


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_a_clustered_interval_is_that_of_all_scores_in_the_clusters_drawn(method):
    scores = np.random.default_rng(3).random(len(CLUSTERS))
    names = sorted(set(CLUSTERS))
    of_cluster = [scores[[cluster == name for cluster in CLUSTERS]] for name in names]
    drawn = [np.rint(resampled_means(row, 7, 400) * len(names)) for row in np.eye(len(names))]  # times of each cluster
    sums = sum(times * own.sum() for times, own in zip(drawn, of_cluster, strict=True))
    means = sums / sum(times * len(own) for times, own in zip(drawn, of_cluster, strict=True))
    expected = np.quantile(means, [0.05, 0.95])
    if method == "bca":
        gaps = np.array([own.sum() - scores.mean() * len(own) for own in of_cluster])
        acceleration = (gaps**3).sum() / (6 * (gaps**2).sum() ** 1.5)
        below, equal = np.mean(means < scores.mean() - 1e-12), np.mean(np.abs(means - scores.mean()) <= 1e-12)
        z0 = stats.norm.ppf(below + equal / 2)
        z = z0 + stats.norm.ppf([0.05, 0.95])
        expected = np.quantile(means, stats.norm.cdf(z0 + z / (1 - acceleration * z)))
    options = {"level": 0.9, "seed": 7, "num_resamples": 400, "method": method}
    np.testing.assert_allclose(bootstrap_interval(scores, clusters=CLUSTERS, **options), expected, rtol=0, atol=1e-13)
    alone = bootstrap_interval(scores, clusters=np.arange(len(scores)), **options)
    assert alone == bootstrap_interval(scores, **options)
    assert bootstrap_interval([0.25] * 9, clusters=CLUSTERS, **options) == (0.25, 0.25)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=14), st.integers(0, 10_000))
def test_p_values_of_clusters_are_those_of_all_swaps_of_clusters(clusters, seed):
    a, b = np.random.default_rng(seed).choice([0.0, 0.1, 0.3, 0.6309297535714575], (2, len(clusters)))
    names = sorted(set(clusters))
    signs = 1 - 2 * ((np.arange(2 ** len(names))[:, None] >> np.arange(len(names))) & 1)
    totals = signs[:, np.searchsorted(names, clusters)] @ (a - b)
    exact = np.mean(np.abs(totals) >= abs((a - b).sum()) - 1e-12)
    assert paired_permutation_test(a, b, clusters=clusters) == pytest.approx(exact, abs=1e-12)


def test_differences_that_cancel_within_clusters_are_none():
    a = [0.1, 0.2, 0.3, 0.3, 0.2, 0.1] * 20
    b = [0.3, 0.2, 0.1, 0.1, 0.2, 0.3] * 20
    assert paired_permutation_test(a, b, clusters=np.repeat(np.arange(20), 6)) == 1.0


def test_clusters_make_up_for_sessions_that_resemble_each_other():
    """Where no method is better, only with clusters are p-values uniform and do intervals cover 0 as they say."""
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(40), rng.integers(1, 12, 40))
    p_values, covered = {True: [], False: []}, []
    for seed in range(200):
        differences = rng.normal(size=40)[clusters] + 0.3 * rng.normal(size=len(clusters))
        for by_user in (True, False):
            given = {"clusters": clusters} if by_user else {}
            zeros = np.zeros(len(clusters))
            p_values[by_user].append(
                paired_permutation_test(differences, zeros, seed=seed, num_permutations=499, **given)
            )
        low, high = bootstrap_interval(differences, level=0.9, num_resamples=500, clusters=clusters)
        covered.append(low <= 0 <= high)
    assert stats.kstest(p_values[True], "uniform").pvalue > 0.001
    assert np.mean(np.array(p_values[False]) < 0.05) > 0.3
    assert 0.8 < np.mean(covered) < 0.95


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
        (lambda: bootstrap_interval(["a"]), r"scores holds values of type <U1: numbers are needed"),
        (lambda: bootstrap_interval([0.1], level=95), r"level = 95: a level lies between 0 and 1"),
        (lambda: bootstrap_interval([0.1], level="a"), r"level = 'a': pass a number"),
        (lambda: bootstrap_interval([0.1], level=None), r"level = None: pass a number"),
        (lambda: bootstrap_interval([0.1], level=10**400), r"level = 10+: pass a number that a float holds"),
        (lambda: bootstrap_interval([0.1], seed=-1), r"seed = -1: pass a whole number from 0 to 18446744073709551615"),
        (lambda: bootstrap_intervals([[0.1]]), r"scores is a list: pass scores by name"),
        (lambda: bootstrap_interval([0.1], num_resamples=0), r"num_resamples = 0"),
        (lambda: paired_permutation_test([0.1], [0.1, 0.2]), r"a has 1 scores and b has 2"),
        (lambda: paired_permutation_test([], []), r"a is empty"),
        (lambda: paired_permutation_test([0.1], [np.inf]), r"b row 0 is inf"),
        (lambda: paired_permutation_test([0.1], [0.2], num_permutations=1.5), r"num_permutations = 1.5"),
        (
            lambda: paired_permutation_test([0.1], [0.2], seed=2**64),
            r"seed = 18446744073709551616: pass a .* to 18446744073709551615",
        ),
        (lambda: bootstrap_interval([0.1], method="normal"), r'method = "normal": pass "percentile" or "bca"'),
        (
            lambda: bootstrap_interval([0.0, 1.0, 0.3], method="bca", num_resamples=1),
            r"all 1 resampled means lie on one side .* raise num_resamples or use method=\"percentile\"",
        ),
        (
            lambda: bootstrap_intervals({"a": [0.1, 0.2], "b": [0.1]}),
            r'"b" holds 1 scores and "a" 2: pass those of the same',
        ),
        (lambda: bootstrap_intervals({"a": [0.1], "b": [[0.1]]}), r"b has shape \(1, 1\)"),
        (lambda: bootstrap_interval([0.1, 0.2], clusters=["a"]), r"clusters has shape \(1,\) and there are 2 scores"),
        (lambda: bootstrap_interval([0.1, np.nan], clusters=["a", "a"]), r"scores row 1 is NaN"),
        (lambda: paired_permutation_test([0.1, np.inf], [0.1, 0.2], clusters=["a", "a"]), r"a row 1 is inf"),
        (lambda: paired_permutation_test([0.1, 0.2], [0.1], clusters=["a", "a"]), r"a has 2 scores and b has 1"),
        (lambda: paired_permutation_test([0.1], [0.1], clusters=[[1], [2, 3]]), r"clusters holds what cannot be comp"),
        (lambda: paired_t_test([0.1], [0.1, 0.2]), r"a has 1 scores and b has 2"),
        (lambda: paired_t_test([], []), r"a is empty"),
        (lambda: paired_t_test([0.1, np.nan], [0.1, 0.2]), r"a row 1 is NaN"),
        (lambda: paired_t_test([0.5], [0.25]), r"a - b is 0.25 for each of the 1 users, so that a t-test knows no"),
        (lambda: paired_t_test([0.3, 0.5], [0.2, 0.4]), r"for each of the 2 users.*: use the permutation test"),
        (lambda: holm([0.5, 1.5]), r"p_value = 1.5"),
        (lambda: holm([None]), r"p_values holds values of type object: numbers are needed"),
        (lambda: holm(["a"]), r"p_values holds values of type <U1"),
        (lambda: holm(0.5), r"p_values has shape \(\): one flat row of numbers is needed"),
        (lambda: holm([float("nan")]), r"p_value = NaN"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
