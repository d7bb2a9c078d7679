"""EASE against ridge regression of one item at a time."""

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.sparse import csr_array
from sklearn.linear_model import Ridge
from tests.baselines.structured import (
    check_better_than_random,
    check_history_never_counts,
    check_like_random,
    check_one_by_one,
    check_saved,
    dataset_of,
    distinct_sessions,
    ndcg,
    ranks_by_sorting,
    structured,
    without_structure,
)

from langptune_rs.baselines import ease
from langptune_rs.baselines.ease import Ease, EaseConfig, coefficients
from langptune_rs.errors import DataError


def fitted(dataset, seed=0, **settings):
    method = Ease()
    method.fit(dataset, EaseConfig(**settings), seed)
    return method


@pytest.mark.parametrize("l2", [0.5, 20.0, 500.0])
def test_each_column_is_a_ridge_regression_on_the_other_items(l2, monkeypatch):
    monkeypatch.setattr(ease, "ITEMS_PER_BLOCK", 7)
    chosen = (np.random.default_rng(1).random((60, 24)) < 0.3).astype(np.float64)
    weights = coefficients(csr_array(chosen), l2)
    assert weights.dtype == np.float32
    assert weights.flags.c_contiguous
    assert not weights.diagonal().any()
    for item in range(24):
        others = [other for other in range(24) if other != item]
        ridge = Ridge(alpha=l2, fit_intercept=False, solver="cholesky").fit(chosen[:, others], chosen[:, item])
        np.testing.assert_allclose(weights[others, item], ridge.coef_, rtol=1e-5, atol=1e-9)
        lengthened = np.vstack([chosen[:, others], np.sqrt(l2) * np.eye(23)])
        lowest = np.linalg.lstsq(lengthened, np.append(chosen[:, item], np.zeros(23)), rcond=None)[0]
        np.testing.assert_allclose(weights[others, item], lowest, rtol=1e-5, atol=1e-9)


def test_ranks_are_those_of_the_summed_coefficients():
    dataset = structured(120)
    method = fitted(dataset, l2=3.0)
    sessions = dataset.sessions.select("test")
    scores = method.scores(sessions.histories)
    np.testing.assert_allclose(scores, method.weights[sessions.histories].sum(axis=1), rtol=1e-5, atol=1e-6)
    assert method.score_targets(sessions).ranks[:, 0].tolist() == ranks_by_sorting(scores, sessions)


def test_what_is_asked_of_every_method(tmp_path):
    dataset = structured()
    method = fitted(dataset)
    check_better_than_random(method, dataset.sessions.select("test"), len(dataset.catalog))
    shuffled = without_structure(structured(4000))
    check_like_random(fitted(shuffled), shuffled.sessions.select("test"), len(dataset.catalog))
    check_history_never_counts(method, dataset)
    check_one_by_one(method, dataset.sessions)
    check_saved(method, dataset, tmp_path / "saved")
    assert fitted(dataset, seed=1).weights.tobytes() == method.weights.tobytes()


def test_sessions_are_learned_by_heart():
    dataset = distinct_sessions()
    assert ndcg(fitted(dataset, l2=0.1).score_targets(dataset.sessions).ranks[:, 0]) > 0.9


def test_held_out_targets_are_not_known():
    rows = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    weights = fitted(dataset_of(rows, ["train", "validation", "test"], 5)).weights
    assert weights[:3, :3].any()
    assert not weights[[3, 4]].any()
    assert not weights[:, [3, 4]].any()


def test_a_catalog_that_is_too_large_is_refused():
    with pytest.raises(DataError, match=r"120 items, more than max_items = 119\. Raise max_items .* 0 GB"):
        fitted(structured(20), max_items=119)


def test_a_weight_that_is_too_small_is_refused():
    alike = csr_array(np.ones((3, 4)))
    with pytest.raises(DataError, match="l2 = 1e-30: that is too small"):
        coefficients(alike, 1e-30)
    assert np.isfinite(coefficients(alike, 1e-3)).all()


@pytest.mark.parametrize("settings", [{"l2": 0.0}, {"l2": -1.0}, {"max_items": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValidationError):
        EaseConfig(**settings)
