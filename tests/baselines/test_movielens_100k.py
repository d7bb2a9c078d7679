"""The methods of neighbours on real choices, those of MovieLens-100K."""

import numpy as np
import pytest
from tests.baselines.structured import ndcg

from langptune_rs.baselines.ease import Ease
from langptune_rs.baselines.graph_walk import GraphWalk, GraphWalkConfig, count_transitions
from langptune_rs.baselines.interactions import item_sequences
from langptune_rs.baselines.item_knn import ItemKnn
from langptune_rs.baselines.most_popular import MostPopular
from langptune_rs.baselines.nmf import Nmf
from langptune_rs.config.data import DataConfig
from langptune_rs.data import prepare
from langptune_rs.errors import DataError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    config = DataConfig(windows="all", max_item_tokens=None, max_history_tokens=None)
    return prepare("ml-100k", tmp_path_factory.mktemp("ml-100k") / "data", config)


def score(method, dataset):
    return ndcg(method.score_targets(dataset.sessions.select("validation")).ranks[:, 0])


@pytest.mark.parametrize(("method", "settings"), [(ItemKnn, {}), (Ease, {}), (Nmf, {"components": 30, "max_iter": 60})])
def test_what_users_choose_together_beats_popularity(dataset, method, settings):
    popular, fitted = MostPopular(), method()
    popular.fit(dataset, MostPopular.Config(), seed=0)
    fitted.fit(dataset, method.Config(**settings), seed=0)
    assert score(fitted, dataset) > 2 * score(popular, dataset)


def test_the_graph_walk_beats_popularity_without_any_text(dataset):
    """Random embeddings leave it only the transitions."""
    num_items = len(dataset.catalog)
    vectors = np.random.default_rng(0).normal(size=(num_items, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    popular = MostPopular()
    popular.fit(dataset, MostPopular.Config(), seed=0)
    walk = GraphWalk(count_transitions(item_sequences(dataset), num_items), vectors, GraphWalkConfig(edge_weight=2.0))
    assert score(walk, dataset) > 1.5 * score(popular, dataset)


def test_the_components_of_the_paper_are_more_than_there_are_users(dataset):
    with pytest.raises(DataError, match="components = 1000: 943 users chose among 1349 items, .* from 1 to 943"):
        Nmf().fit(dataset, Nmf.Config(), seed=0)
