"""NMF against scipy's non-negative least squares, and against what an exact factorization must give."""

import warnings

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.optimize import nnls
from tests.baselines.structured import (
    NUM_GROUPS,
    check_better_than_random,
    check_history_never_counts,
    check_like_random,
    check_one_by_one,
    check_saved,
    dataset_of,
    distinct_sessions,
    ndcg,
    structured,
    without_structure,
)

from langptune_rs.baselines.interactions import user_items
from langptune_rs.baselines.nmf import Nmf, NmfConfig, non_negative_solution
from langptune_rs.errors import DataError


def fitted(dataset, seed=0, **settings):
    method = Nmf()
    method.fit(dataset, NmfConfig(**settings), seed)
    return method


@pytest.mark.parametrize("num_items", [20, 100])
@pytest.mark.parametrize("components", [1, 5, 40])
def test_sessions_are_the_non_negative_least_squares_of_their_history(num_items, components):
    generator = np.random.default_rng(components)
    for _ in range(30):
        factors = generator.gamma(0.3, size=(num_items, components)) * (generator.random((num_items, components)) < 0.5)
        factors *= 10.0 ** generator.integers(-4, 5)
        wanted = np.zeros(num_items)
        wanted[generator.permutation(num_items)[:4]] = 1.0
        found = non_negative_solution(factors.T @ factors, factors.T @ wanted)
        assert found.min() >= 0
        left = np.linalg.norm(factors @ found - wanted)
        solution, lowest = nnls(factors, wanted)
        assert left <= lowest + 1e-9
        gradient = factors.T @ (wanted - factors @ found)
        scale = np.abs(factors.T @ wanted).max(initial=1e-300)
        assert gradient.max() <= 1e-9 * scale
        assert np.abs(gradient[found > 0]).max(initial=0.0) <= 1e-9 * scale
        if components < num_items and np.linalg.cond(factors) < 1e6:
            np.testing.assert_allclose(found, solution, rtol=1e-6, atol=1e-9 * solution.max(initial=1e-300))


def test_components_that_are_alike_or_empty_do_no_harm():
    factors = np.random.default_rng(0).gamma(0.5, size=(30, 6))
    factors = np.hstack([factors, factors[:, :3], np.zeros((30, 2)), factors[:, :2] * (1 + 1e-15)])
    wanted = np.zeros(30)
    wanted[[3, 8, 20, 21]] = 1.0
    found = non_negative_solution(factors.T @ factors, factors.T @ wanted)
    assert np.isfinite(found).all()
    assert np.linalg.norm(factors @ found - wanted) <= nnls(factors, wanted)[1] + 1e-9
    assert not non_negative_solution(factors.T @ factors, np.zeros(13)).any()


def test_groups_are_found_exactly():
    """Users who choose whole groups have one factor a group, which is the best there is."""
    rows = np.repeat(np.arange(NUM_GROUPS), 6)[:, None] * 5 + np.arange(5)
    dataset = dataset_of(rows, ["train"] * len(rows), 5 * NUM_GROUPS)
    method = fitted(dataset, components=NUM_GROUPS, max_iter=2000)
    assert method.converged
    assert not method.unfinished
    scores = method.session_vectors(dataset.sessions) @ method.item_vectors.T
    for row, items in zip(scores, rows, strict=True):
        np.testing.assert_allclose(row[items], 0.8, atol=0.02)  # four of the five ones, by least squares
        assert np.delete(row, items).max() < 0.02


def test_what_is_asked_of_every_method(tmp_path):
    dataset = structured()
    method = fitted(dataset, components=24)
    assert method.item_vectors.dtype == np.float32
    assert method.item_vectors.min() >= 0
    check_better_than_random(method, dataset.sessions.select("test"), len(dataset.catalog))
    check_history_never_counts(method, dataset)
    check_one_by_one(method, dataset.sessions)
    check_saved(method, dataset, tmp_path / "saved")
    again, other = fitted(dataset, components=24), fitted(dataset, seed=1, components=24)
    assert again.item_vectors.tobytes() == method.item_vectors.tobytes()
    assert other.item_vectors.tobytes() != method.item_vectors.tobytes()


def test_without_structure_it_is_random():
    dataset = without_structure(structured(2000))
    method = fitted(dataset, components=12)
    check_like_random(method, dataset.sessions.select("test"), len(dataset.catalog))


def test_sessions_are_learned_by_heart():
    dataset = distinct_sessions()
    method = fitted(dataset, components=50, max_iter=2000)
    assert ndcg(method.score_targets(dataset.sessions).ranks[:, 0]) > 0.9


def test_passes_that_do_not_converge_warn_nobody_and_are_known(tmp_path):
    dataset = structured(200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = fitted(dataset, components=20, max_iter=2)
    assert (method.num_passes, method.converged) == (2, False)
    assert method.unfinished == "The factors had not settled after max_iter = 2 passes."
    method.save(tmp_path)
    opened = Nmf.open(tmp_path, dataset)
    assert (opened.num_passes, opened.converged) == (2, False)


def test_held_out_targets_are_not_known():
    rows = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    factors = fitted(dataset_of(rows, ["train", "validation", "test"], 5), components=2).item_vectors
    assert factors[:3].any(axis=1).all()
    assert np.abs(factors[3:]).max() < 1e-3 * factors.max()


def test_more_components_than_the_data_allow_are_refused():
    dataset = structured(100)
    assert user_items(dataset).shape == (100, 120)
    with pytest.raises(
        DataError, match="components = 1000: 100 users chose among 120 items, .* Pass components from 1 to 100"
    ):
        fitted(dataset)
    with pytest.raises(DataError, match="components = 101"):
        fitted(dataset, components=101)
    assert fitted(dataset, components=100, max_iter=1).item_vectors.shape == (120, 100)


@pytest.mark.parametrize("settings", [{"components": 0}, {"max_iter": 0}, {"tolerance": -1.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValidationError):
        NmfConfig(**settings)
