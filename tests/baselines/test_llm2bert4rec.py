"""LLM2BERT4Rec: its start against scikit-learn's PCA, and data in which texts decide."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from tests.baselines.sequences import HISTORY, dataset_of, random_rows, split_of

from langptune_rs import evaluate
from langptune_rs.baselines import llm2bert4rec
from langptune_rs.baselines.bert4rec import Bert4Rec
from langptune_rs.baselines.item_transformer import INITIAL_SPREAD
from langptune_rs.baselines.llm2bert4rec import Embedder, Llm2Bert4Rec, principal_components
from langptune_rs.errors import DataError
from langptune_rs.models.embedder import EncoderSize

NUM_ITEMS, NUM_KINDS, DIM = 240, 6, 24


def embed(monkeypatch, vectors: np.ndarray) -> None:
    """Let the embedder give the item with the text "7" row 7 of `vectors`."""
    embedder = SimpleNamespace(
        dim=vectors.shape[1], encode_items=lambda texts: vectors[[int(text) for text in texts]].astype(np.float32)
    )
    monkeypatch.setattr(Embedder, "load", lambda config: embedder)


def vectors_of_kinds(seed: int = 0) -> np.ndarray:
    """Text vectors of items, item i of the kind i % NUM_KINDS: its kind's direction, and noise."""
    draws = np.random.default_rng(seed)
    return draws.normal(size=(NUM_KINDS, DIM))[np.arange(NUM_ITEMS) % NUM_KINDS] + 0.3 * draws.normal(
        size=(NUM_ITEMS, DIM)
    )


def kinds_dataset(seed: int = 0):
    """Sessions that stay within a kind of items, so few that most pairs of items never meet."""
    draws = np.random.default_rng(seed)
    kinds = draws.integers(NUM_KINDS, size=260)
    rows = np.stack(
        [kind + NUM_KINDS * draws.choice(NUM_ITEMS // NUM_KINDS, HISTORY + 1, replace=False) for kind in kinds]
    )
    return dataset_of(rows, split_of(100, 60, 100), NUM_ITEMS)


def test_the_components_are_those_of_scikit_learn():
    vectors = vectors_of_kinds().astype(np.float32)
    ours = principal_components(vectors, 10)
    theirs = PCA(10, svd_solver="full").fit_transform(vectors.astype(np.float64))
    signs = np.sign((ours * theirs).sum(axis=0))
    assert np.abs(ours - signs * theirs).max() < 1e-8 * np.abs(theirs).max()


def test_items_start_as_their_texts_at_the_spread_of_random_weights(monkeypatch):
    vectors = vectors_of_kinds()
    embed(monkeypatch, vectors)
    dataset, method = kinds_dataset(), Llm2Bert4Rec()
    config = Llm2Bert4Rec.Config(hidden=DIM)
    network = method._new_network(config, dataset, seed=0)
    drawn = network.embeddings.detach().clone()
    method.start_network(network, config, dataset)
    items, mask = network.embeddings.detach()[:NUM_ITEMS].double().numpy(), network.embeddings[NUM_ITEMS]
    assert torch.equal(mask, drawn[NUM_ITEMS])
    assert items.std() == pytest.approx(INITIAL_SPREAD, rel=1e-4)
    assert drawn.std().item() == pytest.approx(INITIAL_SPREAD, rel=0.05)

    def distances(x):
        return np.linalg.norm(x[:40, None] - x[None, :40], axis=-1)

    factor = distances(items).sum() / distances(vectors).sum()  # all components are kept, so it is one rotation
    assert np.abs(distances(items) - factor * distances(vectors)).max() < 1e-4 * factor * distances(vectors).max()


def test_where_texts_decide_it_needs_the_right_texts(monkeypatch):
    dataset = kinds_dataset()
    test = dataset.sessions.select("test")
    settings = {"hidden": DIM, "num_blocks": 1, "dropout": 0.0, "mask_probability": 0.3, "batch_size": 16}
    settings |= {"learning_rate": 3e-3, "max_epochs": 12}

    def ndcg(method):
        method.fit(dataset, method.Config(**settings), seed=0)
        return evaluate(method.score_targets(test).ranks[:, 0], ["ndcg@20"]).mean["ndcg@20"]

    plain = ndcg(Bert4Rec())
    embed(monkeypatch, vectors_of_kinds())
    right = ndcg(Llm2Bert4Rec())
    embed(monkeypatch, np.random.default_rng(1).permutation(vectors_of_kinds()))
    wrong = ndcg(Llm2Bert4Rec())
    noise = 4 * 0.11 / len(test) ** 0.5  # 0.11 is the deviation of a session's NDCG@20 where 236 ranks are as likely
    assert right > plain + noise
    assert right > 0.1  # by chance 0.03, and 0.2 if the kind is all that is known
    assert wrong < plain + noise


@pytest.mark.parametrize(
    ("num_items", "dim", "most", "more"),
    [(60, 32, 32, "num_heads, or embedder.model to an embedder of more dimensions."), (33, 64, 32, "num_heads.")],
)
def test_more_dimensions_than_the_texts_have_are_refused(monkeypatch, num_items, dim, most, more):
    embed(monkeypatch, np.random.default_rng(0).normal(size=(num_items, dim)))
    dataset = dataset_of(random_rows(8, num_items, seed=0), split_of(4, 4, 0), num_items)
    found = (
        f"hidden = 36, but the texts of {num_items} items, embedded in {dim} dimensions, have at most {most} "
        f"principal components .* Set hidden to that or less, a multiple of {more}$"
    )
    with pytest.raises(DataError, match=found):
        Llm2Bert4Rec().fit(dataset, Llm2Bert4Rec.Config(hidden=36), seed=0)
    Llm2Bert4Rec().fit(dataset, Llm2Bert4Rec.Config(hidden=32, max_epochs=1), seed=0)


@pytest.mark.parametrize(("dim", "heads", "hidden"), [(1024, 4, 512), (384, 4, 384), (50, 4, 48), (385, 8, 384)])
def test_a_comparison_takes_as_many_dimensions_as_the_embedder_has(monkeypatch, dim, heads, hidden):
    monkeypatch.setattr(llm2bert4rec, "encoder_size", lambda config: EncoderSize(dim, 256))
    choices = Llm2Bert4Rec.choices(Llm2Bert4Rec.Config(num_heads=heads))
    assert choices == {**Bert4Rec.grid, "hidden": (hidden,)}


def test_texts_that_are_all_the_same_are_refused(monkeypatch):
    embed(monkeypatch, np.ones((60, 32)))
    dataset = dataset_of(random_rows(8, 60, seed=0), split_of(4, 4, 0), 60)
    with pytest.raises(DataError, match="the texts of the items, which are all the same"):
        Llm2Bert4Rec().fit(dataset, Llm2Bert4Rec.Config(hidden=16), seed=0)
