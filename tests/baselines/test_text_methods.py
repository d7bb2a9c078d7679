"""What every method must do, asked of those that rank by texts with an embedder as it is."""

import numpy as np
import pytest
from tests.baselines.structured import (
    GROUP_SIZE,
    check_better_than_random,
    check_like_random,
    structured,
    without_structure,
)

from langptune_rs.baselines.emb_0 import Emb0
from langptune_rs.baselines.langptune import LangPTune
from langptune_rs.baselines.last_item import LastItem
from langptune_rs.baselines.mean_history import MeanHistory
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.models.embedder import Embedder
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.rollout.profile_sets import WrittenProfiles


@pytest.fixture(scope="module")
def embedder():
    return Embedder.load(EmbedderConfig())


def emb_0(dataset, embedder, folder):
    return Emb0(dataset, Recommender.of_catalog(embedder, dataset.catalog))


def langptune(dataset, embedder, folder):
    """Profiles that name the shelf of the first item of the history, which is that of all of them."""
    sessions = dataset.sessions.select("test")
    texts = [f"The user likes items of shelf {history[0] // GROUP_SIZE}." for history in sessions.histories]
    zeros = np.zeros(len(texts))
    profiles = WrittenProfiles(texts, zeros.astype(int), zeros == 0, zeros, 1)
    return LangPTune(folder, Recommender.of_catalog(embedder, dataset.catalog), profiles)


def fitted(method):
    def fit(dataset, embedder, folder):
        made = method()
        made.fit(dataset, EmbedderConfig(), seed=0)
        return made

    return fit


METHODS = pytest.mark.parametrize("make", [emb_0, langptune, fitted(LastItem), fitted(MeanHistory)])


@METHODS
def test_texts_that_say_what_belongs_together_rank_far_above_random(make, embedder, tmp_path):
    dataset = structured(400)
    check_better_than_random(make(dataset, embedder, tmp_path), dataset.sessions.select("test"), len(dataset.catalog))


@METHODS
def test_targets_that_nothing_tells_are_ranked_as_by_random(make, embedder, tmp_path):
    dataset = without_structure(structured(1200))
    check_like_random(make(dataset, embedder, tmp_path), dataset.sessions.select("test"), len(dataset.catalog))
