"""Graph walk against breadth-first search and lists that are filled item by item."""

from collections import Counter, deque
from itertools import chain

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.sparse import csr_array
from tests.baselines.structured import (
    check_better_than_random,
    check_history_never_counts,
    check_like_random,
    check_one_by_one,
    check_saved,
    dataset_of,
    distinct_sessions,
    ndcg,
    structured,
    without_structure,
)
from tests.baselines.test_last_item import vectors_of

from langptune_rs.baselines import graph_walk
from langptune_rs.baselines.graph_walk import PLACES, GraphWalk, GraphWalkConfig, count_transitions, fill, rings
from langptune_rs.baselines.interactions import item_sequences


def fitted(dataset, vectors=None, **settings):
    transitions = count_transitions(item_sequences(dataset), len(dataset.catalog))
    return GraphWalk(transitions, vectors_of(dataset) if vectors is None else vectors, GraphWalkConfig(**settings))


def random_graph(seed=0, num_items=40, num_edges=70):
    generator = np.random.default_rng(seed)
    pairs = generator.integers(num_items, size=(num_edges, 2)).astype(np.int32)
    return count_transitions(list(pairs), num_items), pairs


def test_transitions_are_counted_within_sessions():
    sequences = [np.array(items, dtype=np.int32) for items in ([0, 1, 2], [0, 1], [1, 1, 3], [2])]
    assert count_transitions(sequences, 5).toarray().tolist() == [
        [0, 2, 0, 0, 0],
        [0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]


def test_rings_are_those_of_a_breadth_first_search():
    transitions, pairs = random_graph()
    for source in range(40):
        distances = {source: 0}
        queue = deque([source])
        while queue:
            item = queue.popleft()
            for before, after in pairs.tolist():
                if before == item and after not in distances:
                    distances[after] = distances[item] + 1
                    queue.append(after)
        expected = [sorted(item for item, far in distances.items() if far == step) for step in (1, 2, 3, 4)]
        assert [ring.tolist() for ring in rings(transitions, source, 4)] == expected


@pytest.mark.parametrize(
    ("picked", "places", "listed", "left_over"),
    [
        ([[1, 2, 3], [4, 5], [6]], (2, 1, 1), [1, 2, 4, 6], [3, 5]),
        ([[1, 2, 3], [], [6]], (1, 2, 1), [1, 2, 3, 6], []),  # what ring 1 left over takes the places of ring 2
        ([[1, 2, 3, 4], [5], [6]], (1, 2, 1), [1, 2, 5, 6], [3, 4]),  # ahead of ring 2's own item
        ([[1], [5, 6, 7], []], (3, 1, 1), [1, 5, 6, 7], []),  # open places go to what is left over at the end
        ([[], [], []], (7, 2, 1), [], []),
    ],
)
def test_lists_are_filled_ring_by_ring(picked, places, listed, left_over):
    found = fill([np.array(ring, dtype=np.int64) for ring in picked], places)
    assert [part.tolist() for part in found] == [listed, left_over]
    assert len(listed) <= sum(places)


def brute_force(pairs, vectors, history, sources, alpha, num_items):
    """The order of all items outside the history by plain lists: what the paper says, step by step."""
    counts = Counter((a, b) for a, b in pairs.tolist() if a != b)
    listed, left_over = [], []
    for source, places in zip(history[::-1][:sources], PLACES[sources], strict=True):
        similar = [float(vectors[item] @ vectors[source]) for item in range(num_items)]
        near, seen = [source], {source}
        top = max([np.log(1 + n) for (a, _), n in counts.items() if a == source], default=1)
        ordered = []
        for step in range(len(places)):
            near = sorted({b for a, b in counts if a in near} - seen)
            seen |= set(near)
            bonus = {b: alpha * np.log(1 + n) / top for (a, b), n in counts.items() if a == source and step == 0}
            best = sorted(near, key=lambda item, bonus=bonus: -(similar[item] + bonus.get(item, 0.0)))
            ordered.append([item for item in best if item not in history and item not in chain(*listed)])
        mine, waiting = [], []
        for ring, number in zip(ordered, places, strict=True):
            while waiting and len(ring) < number:
                mine.append(waiting.pop(0))
                number -= 1
            mine += ring[:number]
            waiting += ring[number:]
        while waiting and len(mine) < sum(places):
            mine.append(waiting.pop(0))
        listed.append(mine)
        left_over.append(waiting)
    of_last = sorted(range(num_items), key=lambda item: -float(vectors[item] @ vectors[history[-1]]))
    everything = [*chain(*listed), *chain(*left_over), *of_last]
    return [item for item in dict.fromkeys(everything) if item not in history]


@pytest.mark.parametrize("sources", [1, 2])
@pytest.mark.parametrize("edges", [40, 150, 600])
def test_the_order_is_that_of_plain_lists(sources, edges):
    generator = np.random.default_rng(2)
    vectors = generator.normal(size=(60, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = generator.integers(60, size=(edges, 2)).astype(np.int32)
    pairs[::3] = pairs[0]  # one frequent transition
    config = GraphWalkConfig(num_sources=sources, edge_weight=0.5)
    method = GraphWalk(count_transitions(list(pairs), 60), vectors.astype(np.float32), config)
    for _ in range(40):
        history = generator.permutation(60)[:4].astype(np.int32)
        expected = brute_force(pairs, vectors, history.tolist(), sources, 0.5, 60)
        order = method.order(history).tolist()
        assert order[:56] == expected
        assert sorted(order[56:]) == sorted(history.tolist())


def test_frequent_transitions_count_by_the_weight():
    rows = np.array([[0, 1], [0, 2], [0, 2], [0, 2]])
    dataset = dataset_of(rows, ["train"] * 4, 4)
    vectors = np.eye(4, dtype=np.float32)
    vectors[1] = [0.6, 0.8, 0, 0]  # more like item 0 than item 2 is
    history = np.array([0], dtype=np.int32)
    assert fitted(dataset, vectors, edge_weight=0.0).order(history).tolist() == [1, 2, 3, 0]
    assert fitted(dataset, vectors, edge_weight=2.0).order(history).tolist() == [2, 1, 3, 0]


def test_steps_have_a_direction():
    dataset = dataset_of(np.array([[0, 1, 2, 3]]), ["train"], 5)
    method = fitted(dataset, np.eye(5, dtype=np.float32))
    assert method.order(np.array([4, 2], dtype=np.int32))[0] == 3
    assert method.order(np.array([4, 0], dtype=np.int32))[:3].tolist() == [1, 2, 3]


@pytest.mark.parametrize("sources", [1, 2])
def test_what_is_asked_of_every_method(sources, tmp_path):
    dataset = structured()
    method = fitted(dataset, num_sources=sources)
    check_better_than_random(method, dataset.sessions.select("test"), len(dataset.catalog))
    shuffled = without_structure(structured(1600))
    check_like_random(fitted(shuffled, num_sources=sources), shuffled.sessions.select("test"), len(dataset.catalog))
    check_history_never_counts(method, dataset)
    check_one_by_one(method, dataset.sessions)
    check_saved(method, dataset, tmp_path / "saved")


def test_sessions_are_learned_by_heart():
    dataset = distinct_sessions(num_items=600)
    assert ndcg(fitted(dataset).score_targets(dataset.sessions).ranks[:, 0]) > 0.9


def test_fit_counts_embeds_and_keeps_its_settings(monkeypatch, tmp_path):
    dataset, seen = structured(80), []
    vectors = vectors_of(dataset)
    monkeypatch.setattr(graph_walk, "embed_items", lambda config, catalog: seen.append(config) or vectors)
    config = GraphWalkConfig(model="some-model", max_tokens=40, num_sources=2, edge_weight=1.5)
    methods = [GraphWalk() for _ in range(2)]
    for seed, method in enumerate(methods):
        method.fit(dataset, config, seed)
    assert [(type(c).__name__, c.model, c.max_tokens) for c in seen] == [("EmbedderConfig", "some-model", 40)] * 2
    ranks = [method.score_targets(dataset.sessions).ranks.tolist() for method in methods]
    assert ranks[0] == ranks[1]
    assert (
        ranks[0]
        == fitted(dataset, vectors, num_sources=2, edge_weight=1.5).score_targets(dataset.sessions).ranks.tolist()
    )
    check_saved(methods[0], dataset, tmp_path / "saved")


def test_held_out_targets_are_not_known():
    rows = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    transitions = count_transitions(item_sequences(dataset_of(rows, ["train", "validation", "test"], 5)), 5)
    assert isinstance(transitions, csr_array)
    assert sorted(zip(*(place.tolist() for place in transitions.nonzero()), strict=True)) == [(0, 1), (1, 2)]
    assert transitions[0, 1] == 3


@pytest.mark.parametrize("settings", [{"num_sources": 3}, {"edge_weight": -0.5}, {"dim": 0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(ValidationError):
        GraphWalkConfig(**settings)
