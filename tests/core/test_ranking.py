"""ItemIndex against float64 brute force, for any form of input."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from langptune_rs import ItemIndex, Ragged

FLOAT32_ROUNDING = 2.0**-23


@st.composite
def problems(draw):
    """Users, items, targets and exclusions; whole numbers half of the time, whose scores are exact and often tie."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_users, num_items, dim = draw(st.integers(1, 9)), draw(st.integers(2, 200)), draw(st.integers(1, 40))
    whole = draw(st.booleans())

    def embeddings(rows):
        values = rng.integers(-2, 3, (rows, dim)) if whole else rng.standard_normal((rows, dim))
        return values.astype(np.float32)

    orders = [rng.permutation(num_items) for _ in range(num_users)]
    targets = [order[: rng.integers(1, min(6, num_items))] for order in orders]
    exclude = [order[len(row) :][: rng.integers(0, 8)] for order, row in zip(orders, targets, strict=True)]
    return whole, embeddings(num_users), embeddings(num_items), targets, exclude


def float64_scores(users, items, exclude):
    scores = users.astype(np.float64) @ items.T.astype(np.float64)
    for user, row in enumerate(exclude):
        scores[user, row] = -np.inf
    rounding = FLOAT32_ROUNDING * users.shape[1] * np.abs(users).astype(np.float64) @ np.abs(items.T)
    return scores, rounding


@settings(deadline=None, max_examples=100)
@given(problems())
def test_ranks_are_those_of_float64(problem):
    whole, users, items, targets, exclude = problem
    ranks = ItemIndex(items).rank(users, [list(row) for row in targets], exclude=exclude)
    scores, rounding = float64_scores(users, items, exclude)
    for user, (row, found) in enumerate(zip(targets, ranks, strict=True)):
        for target, rank in zip(row, found, strict=True):
            if whole:
                order = np.lexsort((np.arange(len(items)), -scores[user]))
                assert rank == 1 + np.flatnonzero(order == target)[0]
            else:
                gap = scores[user] - scores[user, target]
                slack = rounding[user] + rounding[user, target]
                others = np.arange(len(items)) != target
                assert 1 + np.sum(gap > slack) <= rank <= 1 + np.sum((gap >= -slack) & others)


@settings(deadline=None, max_examples=100)
@given(problems(), st.floats(0, 1))
def test_search_is_that_of_float64(problem, part):
    whole, users, items, _, exclude = problem
    left = len(items) - max(len(row) for row in exclude)
    k = max(1, int(part * left))
    scores, ids = ItemIndex(items).search(users, k, exclude=exclude)
    assert scores.shape == ids.shape == (len(users), k)
    assert scores.dtype == np.float32
    assert ids.dtype == np.int64
    expected, rounding = float64_scores(users, items, exclude)
    by_id = np.take_along_axis(expected, ids, axis=1)
    np.testing.assert_array_less(np.abs(scores - by_id), np.take_along_axis(rounding, ids, axis=1) + 1e-30)
    for user in range(len(users)):
        assert len(set(ids[user])) == k
        steps = np.diff(scores[user])
        assert np.all((steps < 0) | ((steps == 0) & (np.diff(ids[user]) > 0)))
        if whole:
            order = np.lexsort((np.arange(len(items)), -expected[user]))
            np.testing.assert_array_equal(ids[user], order[:k])
        else:
            unseen = np.delete(expected[user] - rounding[user], ids[user])
            assert np.all(unseen <= scores[user].min() + rounding[user].max())


@settings(deadline=None, max_examples=50)
@given(problems())
def test_tie_rules_bound_each_other(problem):
    _, users, items, targets, exclude = problem
    index = ItemIndex(items)
    targets = [list(row) for row in targets]
    ranks = {t: index.rank(users, targets, exclude=exclude, ties=t).values for t in ("index", "min", "max", "mean")}
    assert np.all((ranks["min"] <= ranks["index"]) & (ranks["index"] <= ranks["max"]))
    np.testing.assert_array_equal(ranks["mean"], (ranks["min"] + ranks["max"]) / 2)


def log_softmax(scores, temperature):
    """By definition, over the last axis; -inf has no share."""
    logits = scores / temperature
    logits -= logits.max(axis=-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@settings(deadline=None, max_examples=100)
@given(problems(), st.floats(0.02, 3))
def test_target_scores_are_ranks_and_the_log_softmax_of_float64(problem, temperature):
    whole, users, items, targets, exclude = problem
    index = ItemIndex(items)
    rows = [list(row) for row in targets]
    ranks, log_probs = index.score_targets(users, rows, exclude, temperature=temperature)
    np.testing.assert_array_equal(ranks.values, index.rank(users, rows, exclude=exclude).values)
    scores, rounding = float64_scores(users, items, exclude)
    expected = log_softmax(scores, temperature)
    for user, (row, found) in enumerate(zip(targets, log_probs, strict=True)):
        # Each score may be off by its rounding, so a log-probability by at most twice the largest.
        slack = 0 if whole else 2 * rounding[user].max() / temperature
        np.testing.assert_allclose(found, expected[user, row], rtol=0, atol=1e-8 + slack)


def test_target_scores_are_the_same_bits_in_any_batch_and_without_a_copy():
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 48)).astype(np.float32) for n in (300, 5000))
    targets, exclude = rng.integers(0, 2500, 300), rng.integers(2500, 5000, (300, 4))
    found = ItemIndex(items).score_targets(users, targets, exclude, temperature=0.07)
    assert found.ranks.dtype == np.int64
    assert found.log_probs.dtype == np.float64
    assert found.ranks.shape == found.log_probs.shape == (300,)
    np.testing.assert_array_equal(found.ranks, ItemIndex(items).rank(users, targets, exclude=exclude))
    for index, rows in ((ItemIndex(items, keep_rounded=False), slice(None)), (ItemIndex(items), slice(7, 8))):
        again = index.score_targets(users[rows], targets[rows], exclude[rows], temperature=0.07)
        np.testing.assert_array_equal(again.ranks, found.ranks[rows])
        np.testing.assert_array_equal(again.log_probs, found.log_probs[rows])


def test_target_scores_keep_the_form_of_the_targets(tied):
    index, users = tied
    for targets in FORMS:
        ranks, log_probs = index.score_targets(users, targets, temperature=1)
        assert type(ranks) is type(log_probs) is type(index.rank(users, targets))
        assert [len(row) for row in log_probs] == [2, 2]
    alone = index.score_targets(users, [2, 4], [[0, 1, 3, 4], [0, 1, 2, 3]], temperature=0.5)
    assert alone.log_probs.tolist() == [0.0, 0.0]


def test_rank_and_search_agree_to_the_bit():
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 33)).astype(np.float32) for n in (50, 3000))
    items[100:200] = items[300:400]
    index = ItemIndex(items)
    _, ids = index.search(users, len(items))
    targets = rng.integers(0, len(items), len(users))
    ranks = index.rank(users, targets)
    np.testing.assert_array_equal(ids[np.arange(len(users)), ranks - 1], targets)


@pytest.fixture(scope="module")
def tied():
    """Three items of score 1, one of 2 and one of 0 for each of two users."""
    items = np.array([[1], [2], [1], [0], [1]], dtype=np.float32)
    return ItemIndex(items), np.ones((2, 1), dtype=np.float32)


@pytest.mark.parametrize(("ties", "ranks"), [("index", [3, 4]), ("min", [2, 2]), ("max", [4, 4]), ("mean", [3.0, 3.0])])
def test_ties(tied, ties, ranks):
    index, users = tied
    found = index.rank(users, [2, 4], ties=ties)
    assert found.tolist() == ranks
    assert found.dtype == (np.float64 if ties == "mean" else np.int64)


def test_a_tied_item_that_is_excluded_does_not_count(tied):
    index, users = tied
    assert index.rank(users, [2, 4], exclude=[[0], [2, 0]]).tolist() == [2, 2]
    assert index.rank(users, [2, 4], exclude=[[0], [2, 0]], ties="max").tolist() == [3, 2]


TARGETS = [[0, 3], [4, 1]]
FORMS = [
    TARGETS,
    [np.array(row) for row in TARGETS],
    np.array(TARGETS),
    np.array(TARGETS, dtype=np.uint8),
    np.array(TARGETS).T.copy().T,
    ([0, 2, 4], [0, 3, 4, 1]),
    (np.array([0, 2, 4], dtype=np.int32), np.array([0, 3, 4, 1])),
    Ragged(np.array([0, 2, 4]), np.array([0, 3, 4, 1])),
    (np.array([0, 2, 4]), np.frombuffer(b"\0" + np.array([0, 3, 4, 1]).tobytes(), np.uint8)[1:].view(np.int64)),
]
"""The last one is not aligned."""


@pytest.mark.parametrize("targets", FORMS)
def test_targets_take_any_form(tied, targets):
    index, users = tied
    ranks = index.rank(users, targets)
    assert [list(row) for row in ranks] == [[2, 5], [4, 1]]
    if isinstance(targets, np.ndarray):
        assert ranks.shape == targets.shape
    else:
        assert isinstance(ranks, Ragged)


@pytest.mark.parametrize("exclude", FORMS)
def test_exclusions_take_any_form(tied, exclude):
    index, users = tied
    assert index.rank(users, [2, 2], exclude=exclude).tolist() == [2, 2]
    assert index.search(users, 2, exclude=exclude)[1].tolist() == [[1, 2], [0, 2]]


def test_a_target_alone_ranks_first(tied):
    index, users = tied
    assert index.rank(users, [3, 4], exclude=[[0, 1, 2, 4], [0, 1, 2, 3]], ties="mean").tolist() == [1, 1]


def test_rows_may_be_ragged_and_empty(tied):
    index, users = tied
    ranks = index.rank(users, [[], [1, 0, 3]], exclude=[[1, 1], []])
    assert [row.tolist() for row in ranks] == [[], [1, 2, 5]]
    assert index.rank(users, [2, 2], exclude=[[], []]).tolist() == [3, 3]


@pytest.mark.parametrize("targets", [np.array([2, 4]), [2, 4], [np.int64(2), 4]])
def test_one_target_per_user_gives_a_flat_array(tied, targets):
    index, users = tied
    assert index.rank(users, targets).tolist() == [3, 4]


def test_no_users(tied):
    index, users = tied
    assert index.rank(users[:0], np.empty(0, dtype=np.int64)).shape == (0,)
    assert [found.shape for found in index.search(users[:0], 3)] == [(0, 3), (0, 3)]


@pytest.mark.parametrize("k", [1, 5, np.int32(5)])
def test_k_reaches_the_number_of_items(tied, k):
    index, users = tied
    assert index.search(users, k)[1][0].tolist() == [1, 0, 2, 4, 3][:k]


def test_the_index_keeps_the_array_it_was_given(tmp_path):
    np.save(tmp_path / "items.npy", np.eye(4, dtype=np.float32))
    items = np.load(tmp_path / "items.npy", mmap_mode="r")
    index = ItemIndex(items)
    assert np.shares_memory(index.item_embeddings, items)
    assert (len(index), index.dim, repr(index)) == (4, 4, "ItemIndex(4 items, dim 4)")
    users = np.eye(4, dtype=np.float32)
    users.flags.writeable = False
    assert index.rank(users, np.arange(4)).tolist() == [1, 1, 1, 1]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**32), st.floats(0, 1), st.booleans())
def test_search_beside_the_largest_items_and_long_exclusions(seed, part, keep_rounded):
    rng = np.random.default_rng(seed)
    num_items, dim = int(rng.integers(60, 400)), int(rng.integers(1, 80))
    items, users = (np.abs(rng.standard_normal((n, dim))) for n in (num_items, 3))
    items, users = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (items, users))
    items *= rng.choice([1, 1e35, 1e37, 1.6e38], (num_items, 1), p=rng.dirichlet(np.ones(4)))
    items, users = items.astype(np.float32), users.astype(np.float32)
    exclude = [rng.permutation(num_items)[: rng.integers(0, num_items)] for _ in users]
    left = num_items - max(len(row) for row in exclude)
    k = max(1, int(part * min(left, num_items // 4)))
    index = ItemIndex(items, keep_rounded=keep_rounded)
    exact = index.score(users, np.tile(np.arange(num_items), (3, 1)))
    for user, row in enumerate(exclude):
        exact[user, row] = -np.inf
    ids = index.search(users, k, exclude=exclude)[1]
    np.testing.assert_array_equal(ids, np.argsort(-exact, axis=1, kind="stable")[:, :k])
    best = index.rank(users, ids, exclude=exclude)
    np.testing.assert_array_equal(best, np.tile(np.arange(1, k + 1), (3, 1)))


def test_many_targets_rank_as_a_sorted_list_says():
    rng = np.random.default_rng(0)
    users, items = (rng.integers(-2, 3, (n, 6)).astype(np.float32) for n in (5, 2000))
    targets = [rng.permutation(2000)[:n] for n in (1, 128, 129, 1500, 2000)]
    index = ItemIndex(items)
    places = np.argsort(index.search(users, 2000)[1], axis=1)
    scores = users @ items.T
    ranks = {ties: index.rank(users, targets, ties=ties) for ties in ("index", "min", "max")}
    for user, row in enumerate(targets):
        others, own = scores[user], scores[user, row][:, None]
        np.testing.assert_array_equal(ranks["index"][user], 1 + places[user, row])
        np.testing.assert_array_equal(ranks["min"][user], 1 + (others > own).sum(1))
        np.testing.assert_array_equal(ranks["max"][user], (others >= own).sum(1))


@pytest.mark.parametrize("scale", [1e-44, 1e-38, 1e-20, 1e18])
def test_tiny_and_huge_embeddings(scale):
    users = np.array([[1, 0], [0, 1]], dtype=np.float32)
    items = (np.array([[1, 3], [2, 2], [3, 1]]) * scale).astype(np.float32)
    assert ItemIndex(items).search(users, 3)[1].tolist() == [[2, 1, 0], [0, 1, 2]]
