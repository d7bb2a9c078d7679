"""ItemKNN against loops over pairs of items in float64."""

import math

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.sparse import csr_array
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

from langptune_rs.baselines import item_knn
from langptune_rs.baselines.item_knn import ItemKnn, ItemKnnConfig, nearest_neighbours


def fitted(dataset, seed=0, **settings):
    method = ItemKnn()
    method.fit(dataset, ItemKnnConfig(**settings), seed)
    return method


def brute_force(chosen, neighbours, shrinkage):
    """The similarities by two loops, (n_items, n_items)."""
    num_items = chosen.shape[1]
    kept = np.zeros((num_items, num_items))
    for i in range(num_items):
        of_item = []
        for j in range(num_items):
            common = sum(bool(chosen[user, i] and chosen[user, j]) for user in range(len(chosen)))
            if i != j and common:
                norm = math.sqrt(float(chosen[:, i].sum()) * float(chosen[:, j].sum()))
                of_item.append((-common / (norm + shrinkage), j))
        for similarity, j in sorted(of_item)[:neighbours]:
            kept[i, j] = -similarity
    return kept


@pytest.mark.parametrize(("neighbours", "shrinkage"), [(3, 0.0), (3, 5.0), (100, 0.0), (1, 2.5)])
def test_similarities_are_those_of_two_loops(neighbours, shrinkage, monkeypatch):
    monkeypatch.setattr(item_knn, "ITEMS_PER_BLOCK", 7)
    chosen = (np.random.default_rng(0).random((25, 20)) < 0.25).astype(np.float32)
    chosen[:, 4] = 0  # an item that nobody chose
    found = nearest_neighbours(csr_array(chosen), neighbours, shrinkage)
    assert found.dtype == np.float32
    assert np.diff(found.indptr).max() <= neighbours
    np.testing.assert_array_equal(found.toarray(), brute_force(chosen, neighbours, shrinkage).astype(np.float32))


def test_ranks_are_those_of_the_summed_similarities():
    dataset = structured(120)
    method = fitted(dataset, neighbours=6, shrinkage=1.0)
    sessions = dataset.sessions.select("test")
    similarities = method.similarities.toarray()
    scores = np.array([[similarities[j, list(history)].sum() for j in range(120)] for history in sessions.histories])
    np.testing.assert_allclose(method.scores(sessions.histories), scores, rtol=1e-6)
    assert method.score_targets(sessions).ranks[:, 0].tolist() == ranks_by_sorting(
        method.scores(sessions.histories), sessions
    )


def test_neighbours_are_those_of_the_item_that_is_scored():
    """The nearest item of 0 is 1, and that of 1 is 2, since two of its three users chose both."""
    dataset = dataset_of(np.array([[0, 1], [1, 2], [1, 2]]), ["train"] * 3, 3)
    scores = fitted(dataset, neighbours=1, shrinkage=0.0).scores(np.array([[0], [1], [2]], dtype=np.int32))
    of_zero_and_one, of_one_and_two = 1 / math.sqrt(3), 2 / math.sqrt(6)
    expected = [[0, 0, 0], [of_zero_and_one, 0, of_one_and_two], [0, of_one_and_two, 0]]
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_what_is_asked_of_every_method(tmp_path):
    dataset = structured()
    method = fitted(dataset)
    check_better_than_random(method, dataset.sessions.select("test"), len(dataset.catalog))
    shuffled = without_structure(structured(4000))
    check_like_random(fitted(shuffled), shuffled.sessions.select("test"), len(dataset.catalog))
    check_history_never_counts(method, dataset)
    check_one_by_one(method, dataset.sessions)
    check_saved(method, dataset, tmp_path / "saved")
    assert fitted(dataset, seed=1).similarities.data.tobytes() == method.similarities.data.tobytes()


def test_sessions_are_learned_by_heart():
    dataset = distinct_sessions()
    assert ndcg(fitted(dataset).score_targets(dataset.sessions).ranks[:, 0]) > 0.9


def test_held_out_targets_are_not_known():
    rows = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    similarities = fitted(dataset_of(rows, ["train", "validation", "test"], 5)).similarities.toarray()
    assert similarities[0].nonzero()[0].tolist() == [1, 2]
    assert not similarities[[3, 4]].any()


@pytest.mark.parametrize("settings", [{"neighbours": 0}, {"shrinkage": -1.0}, {"neighbors": 3}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValidationError):
        ItemKnnConfig(**settings)
