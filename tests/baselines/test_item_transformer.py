"""What BERT4Rec, LLM2BERT4Rec and SASRec have in common."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tests.baselines.sequences import HISTORY, circles, dataset_of, random_rows, split_of

from langptune_rs import evaluate
from langptune_rs.baselines import item_transformer
from langptune_rs.baselines.bert4rec import Bert4Rec
from langptune_rs.baselines.item_transformer import _METRIC, UNKNOWN, sequence_rows
from langptune_rs.baselines.llm2bert4rec import Embedder, Llm2Bert4Rec
from langptune_rs.baselines.random import Random
from langptune_rs.baselines.sasrec import SasRec
from langptune_rs.errors import DataError, TrainingError

METHODS = (Bert4Rec, Llm2Bert4Rec, SasRec)
DIM = 80


@pytest.fixture(autouse=True)
def embedder_of_numbers(monkeypatch):
    """An embedder that gives a random vector for each number that a text is."""

    def encode_items(texts):
        return np.stack([np.random.default_rng(int(text)).normal(size=DIM) for text in texts]).astype(np.float32)

    monkeypatch.setattr(Embedder, "load", lambda config: SimpleNamespace(dim=DIM, encode_items=encode_items))


def fitted(method, dataset, seed=0, checkpoint=None, **settings):
    """The method with settings that learn in seconds."""
    small = {"hidden": 28, "num_heads": 4, "num_blocks": 1, "dropout": 0.0, "batch_size": 16, "learning_rate": 3e-3}
    if issubclass(method, Bert4Rec):
        small |= {"mask_probability": 0.2, "decay": 1.0}
    made = method()
    made.fit(dataset, method.Config(**(small | settings)), seed, checkpoint)
    return made


def ndcg(method, sessions):
    return evaluate(method.score_targets(sessions).ranks[:, 0], ["ndcg@20"]).mean["ndcg@20"]


def weights_of(method):
    return {name: weights.clone() for name, weights in method.network.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_what_follows_and_is_the_same_once_saved(method, tmp_path):
    dataset = circles()
    test = dataset.sessions.select("test")
    made = fitted(method, dataset, max_epochs=30, patience=30)
    random = Random()
    random.fit(dataset, Random.Config(), 0)
    assert ndcg(made, test) > 0.75 > 2 * ndcg(random, test)

    made.save(tmp_path)
    opened = method.open(tmp_path, dataset)
    assert opened.item_vectors.tobytes() == made.item_vectors.tobytes()
    assert opened.session_vectors(test).tobytes() == made.session_vectors(test).tobytes()
    assert opened.score_targets(test).ranks.tolist() == made.score_targets(test).ranks.tolist()
    with pytest.raises(DataError, match="another size than this one, which has 31 items and histories of 4"):
        method.open(tmp_path, circles(31))


@pytest.mark.parametrize("method", METHODS)
def test_it_can_learn_sessions_by_heart(method):
    rows = random_rows(50, 100, seed=1)
    dataset = dataset_of(np.concatenate([rows, rows]), split_of(50, 50, 0), 100)
    made = fitted(method, dataset, hidden=64, learning_rate=2e-3, max_epochs=80, patience=80)
    assert ndcg(made, dataset.sessions.select("train")) > 0.9


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_says_whether_validation_still_improved_at_its_end(method, monkeypatch):
    scores = iter([0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.3, 0.3])
    monkeypatch.setattr(
        item_transformer, "evaluate", lambda ranks, metrics: SimpleNamespace(mean={_METRIC: next(scores)})
    )
    made = fitted(method, circles(), max_epochs=3, patience=2)
    assert made.unfinished == "max_epochs = 3 ended training, with the best score on validation after 3."
    made = fitted(method, circles(), max_epochs=5, patience=2)
    assert len(made.epochs.losses) == 5
    assert not made.unfinished, "it would have stopped here anyway"


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_learned_of_targets_that_are_held_out(method):
    """Targets that nothing tells are ranked as by chance, though the same histories are trained on."""
    num_items, num_test = 40, 300
    rows = random_rows(60 + num_test, num_items, seed=2)
    dataset = dataset_of(rows, split_of(40, 20, num_test), num_items)
    made = fitted(method, dataset, max_epochs=5, patience=5)
    gains = np.log2(1 + np.arange(1, num_items - HISTORY + 1)) ** -1.0
    gains[20:] = 0
    assert abs(ndcg(made, dataset.sessions.select("test")) - gains.mean()) < 4 * gains.std() / num_test**0.5


@pytest.mark.parametrize("method", METHODS)
def test_a_held_out_target_changes_no_weight(method):
    dataset = circles()
    held_out = np.flatnonzero(~dataset.sessions.splits.mask("train"))
    before = weights_of(fitted(method, dataset, max_epochs=1))
    rows = sequence_rows(dataset)
    assert (rows[held_out, -1] == UNKNOWN).all()
    assert (np.delete(rows, held_out, axis=0) != UNKNOWN).all()
    dataset.sessions.targets[held_out] = (dataset.sessions.targets[held_out] + 15) % 30
    assert same(before, weights_of(fitted(method, dataset, max_epochs=1)))


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_gives_the_same_weights_also_after_an_interruption(method, tmp_path):
    dataset = circles()
    settings = {"dropout": 0.2, "patience": 9}
    state = torch.random.get_rng_state()
    through = fitted(method, dataset, max_epochs=4, **settings)
    assert torch.equal(state, torch.random.get_rng_state())
    fitted(method, dataset, max_epochs=2, checkpoint=tmp_path / "state", **settings)
    resumed = fitted(method, dataset, max_epochs=4, checkpoint=tmp_path / "state", **settings)
    assert resumed.epochs == through.epochs
    assert same(weights_of(through), weights_of(resumed))
    other = fitted(method, dataset, seed=1, max_epochs=4, **settings)
    assert not same(weights_of(through), weights_of(other))


@pytest.mark.parametrize(
    "damage", [lambda file: file[: len(file) // 2], lambda file: b"", lambda file: b"PK" + file[9:]]
)
def test_a_damaged_checkpoint_is_reported_and_training_begins_again(damage, tmp_path, capsys):
    method, dataset, state = METHODS[0], circles(), tmp_path / "state"
    through = fitted(method, dataset, max_epochs=2)
    fitted(method, dataset, max_epochs=1, checkpoint=state)
    state.write_bytes(damage(state.read_bytes()))
    again = fitted(method, dataset, max_epochs=2, checkpoint=state)
    assert f"warning: {state} cannot be read" in capsys.readouterr().err
    assert again.epochs == through.epochs
    assert same(weights_of(through), weights_of(again))


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_of_a_sequence_does_not_depend_on_others(method):
    dataset = circles()
    made = fitted(method, dataset, max_epochs=1)
    network = made.network.double()
    inputs, labels = map(
        torch.from_numpy, made.examples(sequence_rows(dataset)[130:150], made._config, np.random.default_rng(0))
    )
    assert (labels == UNKNOWN).any()
    with torch.no_grad():
        alone = [network.loss(inputs[[i]], labels[[i]]).item() for i in range(len(inputs))]
        together = network.loss(inputs, labels).item()
        pair = network.loss(inputs[[3, 17]], labels[[3, 17]]).item()
    assert min(alone) > 0
    assert together == pytest.approx(sum(alone), rel=1e-12)
    assert pair == pytest.approx(alone[3] + alone[17], rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_cross_entropy_over_the_catalog(method):
    dataset = circles()
    made = fitted(method, dataset, max_epochs=1)
    network = made.network.double()
    inputs, labels = map(
        torch.from_numpy, made.examples(sequence_rows(dataset)[:8], made._config, np.random.default_rng(0))
    )
    with torch.no_grad():
        expected = 0.0
        for states, asked in zip(network.states(inputs), labels, strict=True):
            for place in np.flatnonzero(asked.numpy() != UNKNOWN):
                scores = network.items().numpy() @ network.queries(states[[place]])[0].numpy()
                assert scores.shape == (30,)
                expected += np.log(np.exp(scores).sum()) - scores[asked[place]]
        assert network.loss(inputs, labels).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("method", METHODS)
def test_items_of_the_history_do_not_count(method):
    dataset = circles()
    test = dataset.sessions.select("test")
    made = fitted(method, dataset, max_epochs=1)
    scores = made.session_vectors(test).astype(np.float64) @ made.item_vectors.astype(np.float64).T
    for i, rank in enumerate(made.score_targets(test).ranks[:, 0]):
        left = np.delete(scores[i], test.histories[i])
        assert rank == 1 + (left > scores[i, test.targets[i]]).sum()


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_trained_is_refused(method):
    with pytest.raises(ValueError, match="hidden = 10 does not divide into num_heads = 4 equal parts"):
        method.Config(hidden=10, num_heads=4)
    with pytest.raises(DataError, match="no sessions in the split 'validation'"):
        fitted(method, dataset_of(random_rows(4, 9, seed=0), split_of(4, 0, 0), 9))
    with pytest.raises(TrainingError, match=f"The loss of {method.name} is nan in epoch 1. Choose a learning_rate"):
        fitted(method, circles(), learning_rate=1e38, max_epochs=1)
