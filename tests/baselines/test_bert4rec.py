"""BERT4Rec against transformers' own model, and its gaps against what they claim to be."""

import math

import numpy as np
import pytest
import torch
from tests.baselines.sequences import circles

from langptune_rs.baselines.bert4rec import Bert4Rec, Bert4RecConfig, Bert4RecNetwork, cloze
from langptune_rs.baselines.item_transformer import INITIAL_SPREAD, UNKNOWN
from langptune_rs.models import precision as precision_module

MASK = 99


def small_network(num_items: int = 30, precision: str = "fp32") -> Bert4RecNetwork:
    torch.manual_seed(3)
    network = Bert4RecNetwork(Bert4RecConfig(hidden=16, precision=precision), num_items, 5).eval()
    with torch.no_grad():
        network.bert.cls.predictions.bias.normal_()
    return network


def test_scores_are_those_of_the_masked_language_model():
    network = small_network()
    inputs = torch.tensor([[3, 8, 1, 29, 30], [30, 2, 30, 4, 5]])
    with torch.no_grad():
        logits = network.bert(input_ids=inputs).logits
        ours = network.queries(network.states(inputs)[:, -1]) @ network.items().T
        assert logits.shape == (2, 5, 31)
        assert torch.allclose(ours, logits[:, -1, :30], atol=1e-5)
        assert torch.equal(network.next_items(inputs), network.queries(network.states(inputs)[:, -1]))
        every_place = logits[1, [0, 2], :30].log_softmax(-1)
        labels = torch.full_like(inputs, UNKNOWN)
        labels[1, 0], labels[1, 2] = 7, 9
        expected = -(every_place[0, 7] + every_place[1, 9]).item()
        assert network.loss(inputs, labels).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("is_faster", [True, False])
def test_training_rounds_its_products_where_the_hardware_is_faster_so(monkeypatch, is_faster):
    monkeypatch.setattr(precision_module, "is_faster_in_bf16", lambda: is_faster)
    inputs, labels = torch.tensor([[3, 8, 30, 29, 30]]), torch.tensor([[UNKNOWN, UNKNOWN, 4, UNKNOWN, 7]])
    losses, gradients = [], []
    for precision in ("fp32", "auto"):
        network = small_network(precision=precision)
        losses.append(network.loss(inputs, labels))
        losses[-1].backward()
        assert {weight.dtype for weight in network.parameters()} == {torch.float32}
        gradients.append(torch.cat([w.grad.flatten() for w in network.parameters() if w.grad is not None]))
    assert torch.equal(*losses) != is_faster
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=2e-2)
    assert torch.cosine_similarity(*gradients, dim=0) > 0.99
    assert torch.equal(network.next_items(inputs), small_network().next_items(inputs))


def test_the_states_of_some_places_are_those_of_the_whole_model_with_their_gradients():
    inputs = torch.tensor([[3, 8, 1, 29, 30], [30, 2, 30, 4, 5], [1, 2, 3, 4, 5]])
    places = torch.tensor([[0, 0, 0, 0, 1], [1, 0, 1, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    weights = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    found = []
    for whole in (False, True):
        network = small_network()
        states = network.states(inputs)[places] if whole else network.states_at(inputs, places)
        (states * weights).sum().backward()
        found.append([states, *(w.grad for w in network.parameters() if w.grad is not None)])
    assert len(found[0]) == len(found[1]) > 30
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


def test_a_history_is_ranked_by_the_model_at_the_mask_after_it():
    dataset = circles()
    method = Bert4Rec(Bert4RecConfig(hidden=16), small_network())
    histories = dataset.sessions.histories[:6].astype(np.int64)
    inputs = torch.from_numpy(np.column_stack([histories, np.full(6, 30)]))
    with torch.no_grad():
        logits = method.network.bert(input_ids=inputs).logits[:, -1, :30].double().numpy()
    for i, rank in enumerate(method.score_targets(dataset.sessions.take(range(6))).ranks[:, 0]):
        left = np.delete(logits[i], histories[i])
        assert rank == 1 + (left > logits[i, dataset.sessions.targets[i]]).sum()


def test_the_output_and_the_input_have_the_same_embeddings():
    network = small_network()
    assert network.bert.cls.predictions.decoder.weight is network.embeddings
    assert network.bert.cls.predictions.decoder.bias is network.bert.cls.predictions.bias
    assert network.embeddings.shape == (31, 16)
    assert abs(network.embeddings.std().item() - INITIAL_SPREAD) < 0.002


@pytest.mark.parametrize("probability", [0.2, 0.5, 0.9])
def test_gaps_are_as_many_as_asked_for(probability):
    num_rows, length = 4000, 5
    rows = np.tile(np.arange(length), (num_rows, 1))
    inputs, labels = cloze(rows, MASK, probability, np.random.default_rng(0))
    masked = inputs == MASK
    assert (masked == (labels != UNKNOWN)).all()
    assert (np.where(masked, labels, inputs) == rows).all()
    assert masked.any(axis=1).all()
    for place in range(length):
        forced = (1 - probability) ** length if place == length - 1 else 0.0
        share = probability + forced
        deviation = math.sqrt(share * (1 - share) / num_rows)
        assert abs(masked[:, place].mean() - share) < 4 * deviation


def test_where_no_item_is_masked_the_last_known_one_is():
    rows = np.array([[1, 2, 3, 4, 5], [6, 7, 8, 9, UNKNOWN]])
    inputs, labels = cloze(rows, MASK, 1e-12, np.random.default_rng(0))
    assert inputs.tolist() == [[1, 2, 3, 4, MASK], [6, 7, 8, MASK, MASK]]
    u = UNKNOWN
    assert labels.tolist() == [[u, u, u, u, 5], [u, u, u, 9, u]]


def test_an_unknown_item_is_masked_and_never_asked_for():
    rows = np.full((500, 5), 7)
    rows[:, -1] = UNKNOWN
    inputs, labels = cloze(rows, MASK, 0.5, np.random.default_rng(1))
    assert (inputs[:, -1] == MASK).all()
    assert (labels[:, -1] == UNKNOWN).all()
    assert 0 < (labels == UNKNOWN)[:, :-1].mean() < 1


def test_the_learning_rate_falls_in_steps():
    config = Bert4RecConfig(learning_rate=1e-2, decay_step=3, decay=0.5)
    assert [config.learning_rate_in(epoch) for epoch in (0, 2, 3, 5, 6)] == [1e-2, 1e-2, 5e-3, 5e-3, 2.5e-3]
    assert Bert4RecConfig().learning_rate_in(99) == 1e-3


def test_the_settings_are_those_of_the_paper():
    config = Bert4RecConfig()
    assert (config.batch_size, config.learning_rate, config.decay_step, config.dropout) == (128, 1e-3, 25, 0.1)
    assert (config.hidden, config.num_blocks, config.num_heads, config.mask_probability) == (512, 2, 4, 0.5)
