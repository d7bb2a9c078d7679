"""The graph that LightGCN and MCL share, against torch_geometric and loops, and what both methods must do."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from tests.baselines.tastes import HISTORY, by_heart, dataset_of, tastes

from langptune_rs import evaluate
from langptune_rs.baselines.graph import Graph, GraphConfig, ItemRows, make_model, spread
from langptune_rs.baselines.interactions import user_items
from langptune_rs.baselines.lightgcn import LightGCN
from langptune_rs.baselines.mcl import MCL
from langptune_rs.baselines.random import Random
from langptune_rs.errors import DataError, TrainingError

METHODS = pytest.mark.parametrize("method", [LightGCN, MCL])
QUICK = {
    "LightGCN": LightGCN.Config(dim=32, num_layers=2, batch_size=200, learning_rate=0.02, max_epochs=30),
    "MCL": MCL.Config(dim=32, num_layers=2, batch_size=100, learning_rate=0.02, max_epochs=40),
}


def make_graph(num_users: int = 40, num_items: int = 25, share: float = 0.2, seed: int = 0) -> Graph:
    """A random graph in which the last item was chosen by nobody."""
    chosen = np.random.default_rng(seed).random((num_users, num_items)) < share
    chosen[:, -1] = False
    chosen[np.arange(num_users), np.arange(num_users) % (num_items - 1)] = True
    return Graph(csr_array(chosen.astype(np.float32)))


def edge_index(graph: Graph) -> torch.Tensor:
    """The edges in both directions, as torch_geometric takes them."""
    users, items = torch.from_numpy(graph.users), torch.from_numpy(graph.items + graph.num_users)
    return torch.stack([torch.cat([users, items]), torch.cat([items, users])])


def fitted(method, dataset, seed=0, config=None, checkpoint=None):
    made = method()
    made.fit(dataset, config or QUICK[method.name], seed, checkpoint)
    return made


def ndcg(method, sessions):
    return evaluate(method.score_targets(sessions).ranks[:, 0], ["ndcg@20"]).mean["ndcg@20"]


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("alpha", [None, 1.0])
@pytest.mark.parametrize("dim", [8, 150])
def test_vectors_and_their_gradient_are_those_of_the_library(num_layers, alpha, dim):
    graph = make_graph()
    model = make_model(graph.num_users + graph.num_items, GraphConfig(dim=dim, num_layers=num_layers), alpha, seed=1)
    weights = torch.randn(len(model.embedding.weight), dim, generator=torch.Generator().manual_seed(0))
    results = []
    for vectors in (model.get_embedding(edge_index(graph)), spread(model, graph.adjacency())):
        model.zero_grad()
        (vectors.sin() * weights).sum().backward()
        results.append((vectors.detach(), model.embedding.weight.grad.clone()))
    (vectors, gradient), (our_vectors, our_gradient) = results
    torch.testing.assert_close(our_vectors, vectors, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(our_gradient, gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("alpha", [None, 1.0])
def test_a_user_of_the_graph_gets_the_librarys_vector_without_layer_0(alpha):
    graph = make_graph()
    model = make_model(graph.num_users + graph.num_items, GraphConfig(dim=8), alpha, seed=1)
    with torch.no_grad():
        vectors = model.get_embedding(edge_index(graph))
        expected = (vectors - model.alpha[0] * model.embedding.weight)[: graph.num_users].numpy()
    rows = ItemRows.of(model, graph, graph.adjacency())
    np.testing.assert_allclose(rows.items, vectors[graph.num_users :].numpy(), rtol=1e-5, atol=1e-6)
    assert rows.user_length == pytest.approx(vectors[: graph.num_users].norm(dim=1).mean().item(), rel=1e-6)
    for user in range(graph.num_users):
        history = graph.items[graph.users == user].astype(np.int32)
        np.testing.assert_allclose(rows.user_vectors(history[None])[0], expected[user], rtol=1e-5, atol=1e-6)
        twice = np.concatenate([history, history])
        np.testing.assert_array_equal(rows.user_vectors(twice[None]), rows.user_vectors(history[None]))


def test_a_new_user_receives_what_the_formula_says():
    graph = make_graph()
    model = make_model(graph.num_users + graph.num_items, GraphConfig(dim=5, num_layers=2), None, seed=4)
    layer = model.embedding.weight.detach().numpy().astype(np.float64)
    users_of = [graph.users[graph.items == item] for item in range(graph.num_items)]
    items_of = [graph.items[graph.users == user] for user in range(graph.num_users)]
    layers = [layer]
    for _ in range(2):
        before, layer = layer, np.zeros_like(layer)
        for user, items in enumerate(items_of):
            for item in items:
                edge = np.sqrt(len(items) * len(users_of[item]))
                layer[user] += before[graph.num_users + item] / edge
                layer[graph.num_users + item] += before[user] / edge
        layers.append(layer)
    history = np.array([[3, 7, 11, 0]], dtype=np.int32)
    expected = sum(
        before[graph.num_users + item] / np.sqrt(4 * len(users_of[item])) / 3
        for before in layers[:2]
        for item in history[0]
    )
    actual = ItemRows.of(model, graph, graph.adjacency()).user_vectors(history)[0]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_drawn_items_are_uniform_over_those_not_chosen():
    graph = make_graph(num_users=6, num_items=9, share=0.5)
    users = np.repeat(np.arange(6), 500)
    drawn = graph.draw_unchosen(users, 4, np.random.default_rng(0))
    assert drawn.shape == (3000, 4)
    for user in range(6):
        left = np.setdiff1d(np.arange(9), graph.items[graph.users == user])
        counts = np.bincount(drawn[users == user].ravel(), minlength=9)
        assert counts.sum() == counts[left].sum() == 2000
        expected = 2000 / len(left)
        chi_square = ((counts[left] - expected) ** 2 / expected).sum()
        assert chi_square < len(left) - 1 + 4 * np.sqrt(2 * (len(left) - 1))


def test_a_user_with_one_item_left_always_draws_it():
    chosen = np.ones((2, 5), dtype=np.float32)
    chosen[0, 2], chosen[1, 1:] = 0, 0
    graph = Graph(csr_array(chosen))
    assert set(graph.draw_unchosen(np.zeros(20, dtype=np.int64), 3, np.random.default_rng(0)).ravel()) == {2}
    assert graph.edges_of(np.array([1, 0])).tolist() == [4, 0, 1, 2, 3]


@METHODS
def test_it_finds_the_taste_that_random_does_not(method):
    dataset = tastes(450)
    test = dataset.sessions.select("test")
    found = ndcg(fitted(method, dataset), test)
    random = ndcg(fitted(Random, dataset, config=Random.Config()), test)
    assert found > 0.4 > 3 * random  # a taste has 8 items outside a history: at random among them 0.49


@METHODS
def test_targets_that_mean_nothing_are_not_found(method):
    dataset = tastes(450, shuffle_targets=True)
    ranks = fitted(method, dataset).score_targets(dataset.sessions.select("test")).ranks[:, 0]
    num_left = len(dataset.catalog) - HISTORY
    standard_error = np.sqrt((num_left**2 - 1) / 12 / len(ranks))
    assert abs(ranks.mean() - (num_left + 1) / 2) < 4 * standard_error


@METHODS
def test_it_learns_fifty_sessions_by_heart(method):
    dataset = by_heart()
    config = QUICK[method.name].model_copy(update={"dim": 64, "max_epochs": 200})
    assert ndcg(fitted(method, dataset, config=config), dataset.sessions.select("train")) > 0.9


@METHODS
def test_ranks_are_among_items_outside_the_history(method):
    dataset = tastes(90)
    made = fitted(method, dataset, config=QUICK[method.name].model_copy(update={"max_epochs": 2}))
    assert "max_epochs = 2 ended training" in made.unfinished
    test = dataset.sessions.select("test")
    scores = made.session_vectors(test).astype(np.float64) @ made.item_vectors.astype(np.float64).T
    for i, rank in enumerate(made.score_targets(test).ranks[:, 0]):
        left = np.setdiff1d(np.arange(len(dataset.catalog)), test.histories[i])
        target = scores[i, test.targets[i]]
        assert 1 + (scores[i, left] > target + 1e-6).sum() <= rank <= (scores[i, left] >= target - 1e-6).sum()


@METHODS
def test_the_same_seed_gives_the_same_bits_also_when_saved_and_opened(method, tmp_path):
    dataset = tastes(90)
    config = QUICK[method.name].model_copy(update={"max_epochs": 3})
    first, again, other = (fitted(method, dataset, seed, config) for seed in (5, 5, 6))
    first.save(tmp_path)
    opened = method.open(tmp_path, dataset)
    test = dataset.sessions.select("test")
    for same in (again, opened):
        assert same.item_vectors.tobytes() == first.item_vectors.tobytes()
        assert same.session_vectors(test).tobytes() == first.session_vectors(test).tobytes()
        assert same.score_targets(test).ranks.tolist() == first.score_targets(test).ranks.tolist()
    assert other.item_vectors.tobytes() != first.item_vectors.tobytes()


@METHODS
def test_training_goes_on_from_its_checkpoint_to_the_same_bits(method, tmp_path):
    dataset, config = tastes(90), QUICK[method.name]
    begun, whole = (config.model_copy(update={"max_epochs": n * config.score_every}) for n in (1, 2))
    fitted(method, dataset, config=begun, checkpoint=tmp_path / "state")
    resumed = fitted(method, dataset, config=whole, checkpoint=tmp_path / "state")
    assert resumed.item_vectors.tobytes() == fitted(method, dataset, config=whole).item_vectors.tobytes()


@METHODS
def test_no_held_out_target_is_in_the_graph_and_those_of_test_change_nothing(method):
    dataset = tastes(90)
    config = QUICK[method.name].model_copy(update={"max_epochs": 2})
    before = fitted(method, dataset, config=config)
    is_test = dataset.sessions.splits.mask("test")
    dataset.sessions.targets[is_test] = (dataset.sessions.targets[is_test] + 1) % len(dataset.catalog)
    assert fitted(method, dataset, config=config).item_vectors.tobytes() == before.item_vectors.tobytes()


@METHODS
def test_data_without_validation_are_refused(method):
    rows = np.arange(10).reshape(2, 5)
    dataset = dataset_of(rows, ["a", "b"], ["train", "test"], 12)
    with pytest.raises(DataError, match="no sessions in the split 'validation'"):
        fitted(method, dataset)


@METHODS
def test_users_who_chose_everything_are_left_out_and_alone_refused(method):
    rows = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]])
    config = QUICK[method.name].model_copy(update={"max_epochs": 1})
    with pytest.raises(DataError, match="every user of this data set chose all its 4 items"):
        fitted(method, dataset_of(rows[:, :4], ["a", "a"], ["train", "validation"], 4), config=config)
    both = dataset_of(rows, ["a", "b"], ["train", "validation"], 5)
    assert Graph(user_items(both)).learnable.tolist() == [1]
    assert np.isfinite(fitted(method, both, config=config).item_vectors).all()


@METHODS
def test_another_catalog_is_refused(method, tmp_path):
    fitted(method, tastes(30), config=QUICK[method.name].model_copy(update={"max_epochs": 1})).save(tmp_path)
    with pytest.raises(DataError, match="was fitted to 96 items, but this data set has 24"):
        method.open(tmp_path, tastes(30, num_tastes=2))


@METHODS
def test_the_grid_has_the_papers_setting(method):
    for name, values in method.grid.items():
        assert getattr(method.Config(), name) in values


@METHODS
def test_a_loss_that_is_no_number_is_refused_with_the_way_out(method):
    config = QUICK[method.name].model_copy(update={"learning_rate": 1e38})
    with pytest.raises(
        TrainingError, match=rf"The loss of {method.name} is (nan|inf) in epoch [12]\. Choose a learning"
    ):
        fitted(method, tastes(60), config=config)
