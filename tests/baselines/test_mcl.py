"""MCL's loss, mining and ranking, against loops in float64."""

import math

import numpy as np
import pytest
import torch
from tests.baselines.tastes import tastes
from tests.baselines.test_graph import QUICK, fitted, make_graph

from langptune_rs.baselines.graph import make_model, spread
from langptune_rs.baselines.mcl import (
    MCL,
    half_squared_norms,
    log_one_plus_sum,
    mixed_centric_loss,
    squared_distances,
    tables,
)


def by_loops(distances, chosen_items, drawn_items, config):
    """The loss over each user's list of chosen and list of drawn items, where an item may be drawn twice."""
    pull = push = 0.0
    for row, chosen, drawn in zip(distances, chosen_items, drawn_items, strict=True):
        for item in chosen:
            if row[item] > min(row[other] for other in drawn) - config.margin:
                pull += math.exp(config.alpha * (row[item] + config.lambda_p))
        for item in drawn:
            if row[item] < max(row[other] for other in chosen) + config.margin:
                push += math.exp(-config.beta * (row[item] + config.lambda_n))
    num_users = len(distances)
    return math.log(1 + pull / num_users) / config.alpha + math.log(1 + push / num_users) / config.beta


def samples_of(num_users, num_items, num_negatives, seed):
    """Distances, and each user's chosen and drawn items as lists and as tables."""
    rng = np.random.default_rng(seed)
    distances = rng.gamma(2.0, 1.5, (num_users, num_items))
    orders = [rng.permutation(num_items) for _ in range(num_users)]
    sizes = rng.integers(1, num_items - 1, num_users)
    chosen = [order[:size].tolist() for order, size in zip(orders, sizes, strict=True)]
    drawn = [rng.choice(order[size:], size * num_negatives).tolist() for order, size in zip(orders, sizes, strict=True)]
    is_chosen = torch.zeros(num_users, num_items, dtype=torch.bool)
    num_drawn = torch.zeros(num_users, num_items, dtype=torch.float64)
    for user in range(num_users):
        is_chosen[user, chosen[user]] = True
        for item in drawn[user]:
            num_drawn[user, item] += 1
    return distances, chosen, drawn, is_chosen, num_drawn


@pytest.mark.parametrize(
    "changes",
    [{}, {"margin": 0.0}, {"margin": 0.3}, {"alpha": 1.0, "beta": 4.0, "lambda_p": 8.0, "lambda_n": -1.0}],
)
@pytest.mark.parametrize("seed", range(4))
def test_the_loss_is_the_formula(changes, seed):
    config = MCL.Config(**changes)
    distances, chosen, drawn, is_chosen, num_drawn = samples_of(7, 12, 3, seed)
    loss = mixed_centric_loss(torch.from_numpy(distances), is_chosen, num_drawn, config).item()
    assert loss == pytest.approx(by_loops(distances, chosen, drawn, config), rel=1e-12)


def test_the_gradient_is_that_of_the_formula():
    config = MCL.Config(margin=0.3)
    distances, chosen, drawn, is_chosen, num_drawn = samples_of(5, 9, 3, seed=7)
    leaf = torch.from_numpy(distances).requires_grad_()
    mixed_centric_loss(leaf, is_chosen, num_drawn, config).backward()
    step = 1e-6
    for user, item in np.ndindex(distances.shape):
        up, down = distances.copy(), distances.copy()
        up[user, item] += step
        down[user, item] -= step
        change = by_loops(up, chosen, drawn, config) - by_loops(down, chosen, drawn, config)
        assert leaf.grad[user, item].item() == pytest.approx(change / (2 * step), abs=1e-6)
    assert (leaf.grad[is_chosen] >= 0).all()
    assert (leaf.grad[num_drawn > 0] <= 0).all()


def test_mining_drops_what_is_easy():
    """One user: chosen items at 1 and 4, drawn items at 3 (twice), 5.5 and 9; a margin of 1."""
    distances = torch.tensor([[1.0, 4.0, 3.0, 5.5, 9.0]], dtype=torch.float64)
    is_chosen = torch.tensor([[True, True, False, False, False]])
    num_drawn = torch.tensor([[0.0, 0, 2, 1, 1]], dtype=torch.float64)
    config = MCL.Config(alpha=2.0, beta=0.5, lambda_p=-1.0, lambda_n=1.0)
    hard_chosen, hard_drawn = math.exp(2 * (4 - 1)), 2 * math.exp(-0.5 * (3 + 1))  # 1 < 3 - 1; 5.5 and 9 > 4 + 1
    expected = math.log(1 + hard_chosen) / 2 + math.log(1 + hard_drawn) / 0.5
    assert mixed_centric_loss(distances, is_chosen, num_drawn, config).item() == pytest.approx(expected, rel=1e-12)


def test_where_all_is_easy_there_is_no_loss_and_no_gradient():
    distances = torch.tensor([[1.0, 30.0]], requires_grad=True)
    loss = mixed_centric_loss(distances, torch.tensor([[True, False]]), torch.tensor([[0.0, 1.0]]), MCL.Config())
    loss.backward()
    assert loss.item() == 0
    assert distances.grad.tolist() == [[0, 0]]


def test_large_distances_do_not_overflow():
    value = log_one_plus_sum(torch.tensor([2000.0, 1999.0]), 4).item()
    assert value == pytest.approx(2000 + math.log((1 + math.exp(-1)) / 4), rel=1e-6)
    assert log_one_plus_sum(torch.tensor([]), 4).item() == 0


def test_tables_and_norms_hold_every_sample():
    graph, rng = make_graph(), np.random.default_rng(0)
    users = rng.permutation(graph.learnable)[:10]
    edges = graph.edges_of(users)
    unchosen = graph.draw_unchosen(graph.users[edges], 3, rng)
    samples = tables(graph, edges, unchosen)
    layer_0 = rng.normal(size=(graph.num_users + graph.num_items, 4))
    sums = np.zeros(3)
    is_chosen, num_drawn = np.zeros((10, graph.num_items)), np.zeros((10, graph.num_items))
    for user, item, others in zip(graph.users[edges], graph.items[edges], unchosen, strict=True):
        row = users.tolist().index(user)
        is_chosen[row, item] = 1
        sums += [(layer_0[user] ** 2).sum(), (layer_0[graph.num_users + item] ** 2).sum(), 0]
        for other in others:
            num_drawn[row, other] += 1
            sums[2] += (layer_0[graph.num_users + other] ** 2).sum() / 3
    assert samples.items.tolist() == np.flatnonzero((is_chosen + num_drawn).any(axis=0)).tolist()
    assert samples.chosen.tolist() == (is_chosen[:, samples.items] == 1).tolist()
    assert samples.num_drawn.tolist() == num_drawn[:, samples.items].tolist()
    norms = half_squared_norms(
        torch.from_numpy(layer_0[users]).float(),
        torch.from_numpy(layer_0[graph.num_users + samples.items]).float(),
        samples,
    )
    assert norms.item() == pytest.approx(sums.sum() / 2 / len(edges), rel=1e-5)


def test_an_epochs_first_loss_is_the_formula_over_the_graph():
    """All users in one batch, from the edges to the loss, with distances in float64 by loops."""
    graph, config = make_graph(), MCL.Config(dim=5, batch_size=1000, weight_decay=0.0)
    model = make_model(graph.num_users + graph.num_items, config, MCL.layer_weight, seed=3)
    adjacency = graph.adjacency()
    (loss,) = MCL().losses(model, graph, adjacency, config, np.random.default_rng(8))
    rng = np.random.default_rng(8)
    users = rng.permutation(graph.learnable)
    draws = graph.draw_unchosen(graph.users[graph.edges_of(users)], config.num_negatives, rng)
    vectors = spread(model, adjacency).detach().numpy().astype(np.float64)
    chosen = [graph.items[graph.users == user].tolist() for user in users]
    drawn, start = [], 0
    for items in chosen:
        drawn.append(draws[start : start + len(items)].ravel().tolist())
        start += len(items)
    distances = [[((vectors[u] - v) ** 2).sum() for v in vectors[graph.num_users :]] for u in users]
    assert loss.item() == pytest.approx(by_loops(distances, chosen, drawn, config), rel=1e-5)


def test_the_nearest_item_ranks_first():
    dataset = tastes(90)
    made = fitted(MCL, dataset, config=QUICK["MCL"].model_copy(update={"max_epochs": 2}))
    test = dataset.sessions.select("test")
    items = made.item_vectors[:, :-1].astype(np.float64)
    users = made.session_vectors(test)[:, :-1].astype(np.float64)
    distances = squared_distances(torch.from_numpy(users), torch.from_numpy(items)).numpy()
    np.testing.assert_allclose(distances, ((users[:, None] - items) ** 2).sum(axis=2), rtol=1e-9)
    for i, rank in enumerate(made.score_targets(test).ranks[:, 0]):
        left = np.setdiff1d(np.arange(len(items)), test.histories[i])
        target = distances[i, test.targets[i]]
        assert 1 + (distances[i, left] < target - 1e-5).sum() <= rank <= (distances[i, left] <= target + 1e-5).sum()
    np.testing.assert_allclose(np.linalg.norm(users, axis=1), made.rows.user_length, rtol=1e-5)


def test_defaults_are_those_of_the_paper():
    config = MCL.Config()
    assert (config.learning_rate, config.batch_size, config.dim) == (1e-3, 1000, 512)
    assert (config.num_layers, config.num_negatives) == (3, 10)
    assert (config.alpha, config.beta, config.lambda_p, config.lambda_n) == (1.25, 5.0, 6.5, -0.5)
