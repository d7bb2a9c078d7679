"""SASRec against its equations, in float64."""

import math

import numpy as np
import pytest
import torch
from tests.baselines.sequences import circles

from langptune_rs.baselines.item_transformer import UNKNOWN, sequence_rows
from langptune_rs.baselines.sasrec import SasRec, SasRecConfig, SasRecNetwork

HIDDEN, HEADS, NUM_ITEMS = 12, 3, 30


def small_network() -> SasRecNetwork:
    """A network in float64 whose weights are all of about one size, so that each of them counts."""
    network = SasRecNetwork(SasRecConfig(hidden=HIDDEN, num_heads=HEADS), NUM_ITEMS, 4).double().eval()
    draws = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weights in network.parameters():
            weights.normal_(std=0.4, generator=draws)
    return network


def normalized(x, weights, name):
    centred = x - x.mean(axis=-1, keepdims=True)
    return (
        centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * weights[f"{name}.weight"]
        + (weights[f"{name}.bias"])
    )


def states_by_hand(weights, items):
    """Section III of the paper for one sequence of item indexes: hidden states (L, hidden)."""
    length, size = len(items), HIDDEN // HEADS
    x = weights["item_embeddings.weight"][items] * math.sqrt(HIDDEN) + weights["positions.weight"][:length]
    for block in (0, 1):
        own = {name.removeprefix(f"blocks.layers.{block}."): value for name, value in weights.items()}
        read = normalized(x, own, "norm1")
        queries, keys, values = np.split(read @ own["self_attn.in_proj_weight"].T + own["self_attn.in_proj_bias"], 3, 1)
        attended = np.zeros((length, HIDDEN))
        for head in range(HEADS):
            part = slice(head * size, (head + 1) * size)
            for place in range(length):
                scores = keys[: place + 1, part] @ queries[place, part] / math.sqrt(size)
                share = np.exp(scores) / np.exp(scores).sum()
                attended[place, part] = share @ values[: place + 1, part]
        x = x + attended @ own["self_attn.out_proj.weight"].T + own["self_attn.out_proj.bias"]
        inner = np.maximum(normalized(x, own, "norm2") @ own["linear1.weight"].T + own["linear1.bias"], 0)
        x = x + inner @ own["linear2.weight"].T + own["linear2.bias"]
    return normalized(x, weights, "blocks.norm")


@pytest.mark.parametrize("training", [False, True])
def test_states_are_those_of_the_equations(training):
    network = small_network()
    if training:  # another path in torch; dropout is left out
        network.train()
        for module in network.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            elif isinstance(module, torch.nn.MultiheadAttention):
                module.dropout = 0.0
    weights = {name: value.detach().numpy() for name, value in network.named_parameters()}
    sequences = np.array([[3, 8, 1, 29], [0, 2, 2, 4]])
    with torch.no_grad():
        states = network.states(torch.from_numpy(sequences)).numpy()
    for ours, items in zip(states, sequences, strict=True):
        assert np.abs(ours - states_by_hand(weights, items)).max() < 1e-10


def test_a_place_does_not_see_what_follows():
    network = small_network()
    items = torch.tensor([[3, 8, 1, 29]])
    with torch.no_grad():
        states = network.states(items)
        for place in range(4):
            changed = items.clone()
            changed[0, place] = 15
            moved = (network.states(changed) - states).abs().amax(dim=-1)[0]
            assert (moved[:place] == 0).all()
            assert (moved[place:] > 1e-6).all()


def test_every_place_predicts_the_next_item():
    dataset = circles()
    rows = sequence_rows(dataset)
    inputs, labels = SasRec().examples(rows, SasRecConfig(), np.random.default_rng(0))
    sessions = dataset.sessions
    assert (inputs == sessions.histories).all()
    assert (labels[:, :-1] == sessions.histories[:, 1:]).all()
    train = sessions.splits.mask("train")
    assert (labels[train, -1] == sessions.targets[train]).all()
    assert (labels[~train, -1] == UNKNOWN).all()


def test_blocks_do_not_start_as_copies_of_each_other():
    torch.manual_seed(0)
    network = SasRecNetwork(SasRecConfig(), NUM_ITEMS, 4)
    first, second = (dict(block.named_parameters()) for block in network.blocks.layers)
    for name, weights in first.items():
        if weights.ndim > 1:
            assert not torch.equal(weights, second[name])
            assert abs(weights.std().item() - 0.02) < 0.002
    assert all(not bias.any() for name, bias in first.items() if name.endswith("bias"))
