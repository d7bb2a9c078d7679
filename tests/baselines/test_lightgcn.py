"""LightGCN's loss and batches, against loops in float64."""

import numpy as np
import pytest
import torch
from tests.baselines.test_graph import make_graph

from langptune_rs.baselines import lightgcn
from langptune_rs.baselines.graph import make_model, spread
from langptune_rs.baselines.lightgcn import LightGCN, bpr_loss


@pytest.mark.parametrize("num_negatives", [1, 3])
def test_the_loss_is_the_formula(num_negatives):
    graph, rng = make_graph(), np.random.default_rng(0)
    model = make_model(graph.num_users + graph.num_items, LightGCN.Config(dim=6), None, seed=2)
    vectors = spread(model, graph.adjacency())
    users = rng.integers(0, graph.num_users, 30)
    items = rng.integers(0, graph.num_items, (30, 1 + num_negatives)) + graph.num_users
    loss = bpr_loss(model, vectors, users, items, weight_decay=0.3).item()

    rows, layer_0 = (x.detach().numpy().astype(np.float64) for x in (vectors, model.embedding.weight))
    terms, nodes = [], set()
    for user, (item, *others) in zip(users, items, strict=True):
        nodes |= {int(user), int(item), *map(int, others)}
        for other in others:
            terms.append(-np.log(1 / (1 + np.exp(-(rows[user] @ rows[item] - rows[user] @ rows[other])))))
    decay = sum((layer_0[node] ** 2).sum() for node in nodes)
    assert loss == pytest.approx(np.mean(terms) + 0.3 * decay / 30, rel=1e-5)


def test_an_epoch_has_every_interaction_once_with_items_that_were_not_chosen(monkeypatch):
    graph, seen = make_graph(), []
    model = make_model(graph.num_users + graph.num_items, LightGCN.Config(dim=2), None, seed=2)
    chosen = set(zip(graph.users.tolist(), graph.items.tolist(), strict=True))

    def record(_model, _vectors, users, items, _weight_decay):
        for user, (item, *others) in zip(users, items - graph.num_users, strict=True):
            seen.append((int(user), int(item)))
            assert len(others) == 2
            assert not {(int(user), int(other)) for other in others} & chosen
        return torch.zeros(())

    monkeypatch.setattr(lightgcn, "bpr_loss", record)
    config = LightGCN.Config(dim=2, batch_size=16, num_negatives=2)
    batches = list(LightGCN().losses(model, graph, graph.adjacency(), config, np.random.default_rng(0)))
    assert len(batches) == -(-len(chosen) // 16)
    assert sorted(seen) == sorted(chosen)
    assert seen != sorted(seen)


def test_defaults_are_those_of_the_paper():
    config = LightGCN.Config()
    assert (config.learning_rate, config.batch_size, config.dim) == (1e-3, 1000, 512)
    assert (config.num_layers, config.num_negatives) == (3, 1)
