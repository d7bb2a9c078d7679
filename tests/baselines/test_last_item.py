"""Last item and Mean of history against similarities in float64."""

import math

import numpy as np
import pytest
from tests.baselines.structured import (
    GROUP_SIZE,
    check_better_than_random,
    check_history_never_counts,
    check_like_random,
    check_one_by_one,
    check_saved,
    structured,
    without_structure,
)

from langptune_rs.baselines.item_texts import embed_items
from langptune_rs.baselines.last_item import LastItem
from langptune_rs.baselines.mean_history import MeanHistory
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.errors import InputError, ModelError
from langptune_rs.evaluation.summary import LIKELIHOOD_TEMPERATURE

METHODS = [LastItem, MeanHistory]


def vectors_of(dataset, seed=0):
    """What an embedder might make of the items: those of a shelf are alike."""
    generator = np.random.default_rng(seed)
    num_items = len(dataset.catalog)
    shelves = generator.normal(size=(num_items, 24))[np.arange(num_items) // GROUP_SIZE]
    rows = shelves + 0.5 * generator.normal(size=(num_items, 24))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def expected_scores(method, vectors, history):
    vectors = vectors.astype(np.float64)
    if method is LastItem:
        return vectors @ vectors[history[-1]]
    mean = vectors[history].mean(axis=0)
    return vectors @ (mean / math.sqrt((mean**2).sum()))


@pytest.mark.parametrize("method", METHODS)
def test_ranks_and_log_probabilities_are_those_of_the_similarities(method):
    dataset = structured(80)
    vectors = vectors_of(dataset)
    ranks, log_probs = method(vectors).score_targets(dataset.sessions)
    assert ranks.shape == log_probs.shape == (80, 1)
    for i, (history, target) in enumerate(zip(dataset.sessions.histories, dataset.sessions.targets, strict=True)):
        scores = expected_scores(method, vectors, history)
        scores[history] = -np.inf
        assert 1 + (scores > scores[target] + 1e-6).sum() <= ranks[i, 0] <= (scores > scores[target] - 1e-6).sum()
        logits = scores / LIKELIHOOD_TEMPERATURE
        assert log_probs[i, 0] == pytest.approx(logits[target] - np.log(np.exp(logits).sum()), abs=1e-4)


def test_only_the_last_item_counts_for_one_and_no_order_for_the_other():
    dataset = structured(40)
    vectors = vectors_of(dataset)
    changed = dataset.sessions.take(range(40))
    changed.histories[:] = changed.histories[:, [2, 1, 0, 3]]
    for method in METHODS:
        before, after = (method(vectors).session_vectors(s) for s in (dataset.sessions, changed))
        assert before.tobytes() == after.tobytes()
    changed.histories[:] = dataset.sessions.histories[:, ::-1]
    last, mean = (method(vectors) for method in METHODS)
    assert mean.session_vectors(changed).tobytes() == mean.session_vectors(dataset.sessions).tobytes()
    assert last.session_vectors(changed).tolist() == vectors[dataset.sessions.histories[:, 0]].tolist()


def test_a_history_that_cancels_out_leaves_the_items_in_their_order():
    dataset = structured(8)
    vectors = vectors_of(dataset)
    a, b, c, d = dataset.sessions.histories[0]
    vectors[b], vectors[d] = -vectors[a], -vectors[c]
    method = MeanHistory(vectors)
    assert not method.session_vectors(dataset.sessions.take([0])).any()
    target, history = dataset.sessions.targets[0], dataset.sessions.histories[0]
    rank = method.score_targets(dataset.sessions.take([0])).ranks.item()
    assert rank == 1 + target - (history < target).sum()


@pytest.mark.parametrize("method", METHODS)
def test_what_is_asked_of_every_method(method, tmp_path):
    dataset = structured()
    fitted = method(vectors_of(dataset))
    test = dataset.sessions.select("test")
    check_better_than_random(fitted, test, len(dataset.catalog))
    check_like_random(fitted, without_structure(structured(1600)).sessions, len(dataset.catalog))
    check_history_never_counts(fitted, dataset)
    check_one_by_one(fitted, dataset.sessions)
    check_saved(fitted, dataset, tmp_path / "saved")


@pytest.mark.parametrize("method", METHODS)
def test_the_embedder_embeds_the_items_once(method, monkeypatch):
    dataset = structured(20)
    vectors, read = vectors_of(dataset), []

    class Fake:
        @classmethod
        def load(cls, config):
            read.append(config.model)
            return cls()

        def encode_items(self, texts):
            read.append(list(texts))
            return vectors

    monkeypatch.setattr("langptune_rs.models.embedder.Embedder", Fake)
    fitted = method()
    fitted.fit(dataset, EmbedderConfig(model="some-model"), seed=0)
    assert read == ["some-model", list(dataset.catalog.texts)]
    assert fitted.item_vectors is vectors
    fitted.score_targets(dataset.sessions)
    assert len(read) == 2


def test_bad_input_is_refused():
    dataset = structured(8)
    with pytest.raises(ModelError, match="no-such-embedder"):
        embed_items(EmbedderConfig(model="./no-such-embedder"), dataset.catalog)
    method = LastItem(vectors_of(dataset))
    sessions = dataset.sessions.take([0, 1])
    sessions.targets[1] = sessions.histories[1, 2]
    with pytest.raises(InputError, match="row 1"):
        method.score_targets(sessions)
