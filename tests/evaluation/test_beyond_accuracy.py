"""Coverage, Gini and novelty against brute force over lists and pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs import ItemIndex
from langptune_rs.errors import InputError
from langptune_rs.evaluation import coverage, gini, novelty

NUM_ITEMS = 12

shown = st.permutations(range(NUM_ITEMS))
lists = st.integers(1, 6).flatmap(lambda k: st.lists(shown.map(lambda items: items[:k]), min_size=1, max_size=15)) | (
    st.lists(st.tuples(shown, st.integers(1, 6)).map(lambda drawn: drawn[0][: drawn[1]]), min_size=1, max_size=15)
)


def times(ids):
    return [sum(item in row for row in ids) for item in range(NUM_ITEMS)]


@given(lists)
def test_coverage_is_the_share_of_items_shown(ids):
    assert coverage(ids, NUM_ITEMS) == len({item for row in ids for item in row}) / NUM_ITEMS


@given(lists)
def test_gini_is_half_the_mean_difference_of_two_items_over_the_mean(ids):
    """Gini's own definition (1912) by all pairs: sum of |c_i - c_j| / (2 n^2 mean of c)."""
    counts = times(ids)
    pairs = sum(abs(a - b) for a in counts for b in counts)
    assert gini(ids, NUM_ITEMS) == pytest.approx(pairs / (2 * NUM_ITEMS * sum(counts)), abs=1e-15)


@given(lists, st.lists(st.integers(0, 1000), min_size=NUM_ITEMS, max_size=NUM_ITEMS).filter(any))
def test_novelty_is_the_mean_of_the_users_means(ids, popularity):
    shares = [max(count, 1) / sum(popularity) for count in popularity]
    by_user = [np.mean([-np.log2(shares[item]) for item in row]) for row in ids]
    assert novelty(ids, popularity) == pytest.approx(np.mean(by_user), abs=1e-12)


def test_the_ends_of_the_scales():
    everybody_alike = np.zeros((50, 1), dtype=int)
    every_item_once = np.arange(20).reshape(5, 4)
    assert coverage(everybody_alike, 20) == 0.05
    assert coverage(every_item_once, 20) == 1.0
    assert gini(everybody_alike, 20) == 0.95
    assert gini(every_item_once, 20) == 0.0
    assert novelty(everybody_alike, [9, 0, 0]) == 0.0
    assert novelty(every_item_once, [4] * 20) == pytest.approx(np.log2(20), abs=1e-15)


def test_an_item_without_interactions_is_as_novel_as_one_with_one():
    assert novelty([[1]], [7, 0, 1]) == novelty([[2]], [7, 0, 1]) == 3.0


def test_what_search_finds_can_be_passed_on():
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 8), dtype=np.float32) for n in (30, 100))
    _, ids = ItemIndex(items).search(users, 5)
    assert coverage(ids, 100) == len(np.unique(ids)) / 100
    assert 0 < gini(ids, 100) < 1
    assert novelty(ids, np.ones(100, dtype=np.uint32)) == pytest.approx(np.log2(100), abs=1e-12)


def test_what_shards_find_can_be_passed_on():
    index = ItemIndex(np.eye(4, dtype=np.float32))
    _, ids = index.candidates(np.ones((2, 4), dtype=np.float32), 9, exclude=[[1, 2], []])
    assert [len(row) for row in ids] == [2, 4]
    assert coverage(ids, 5) == 0.8
    assert gini(ids, 4) == pytest.approx((1 * -3 + 1 * -1 + 2 * 1 + 2 * 3) / (4 * 6))
    assert novelty(ids, [1, 1, 1, 1]) == 2.0


def test_numbers_that_no_array_or_sum_of_integers_holds():
    assert coverage([[0], [2**50 - 1]], 2**50) == 2 / 2**50
    assert gini([[7]], 2**62) == 1.0
    assert gini([[0, 2**40]], 2**41) == pytest.approx(1 - 2 / 2**41)
    assert novelty([[0]], [2**62] * 4) == 2.0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coverage([1, 2], 5), r"ids row 0 has shape \(\): one flat row of integers is needed"),
        (lambda: gini([[0.5, 1.0]], 5), r"ids row 0 holds values of type float64: integers are needed"),
        (lambda: gini(np.empty((0, 20), dtype=int), 5), r"ids has no rows: pass the lists of at least one user"),
        (lambda: coverage([[0, 1], [2, 5]], 5), r"ids row 1 holds item 5: item indexes run from 0 to 4; pass the"),
        (lambda: gini([[0, 1], [2, 3], [-1, 3]], 5), r"ids row 2 holds item -1"),
        (lambda: gini([[0, 1, 2], [4, 3, 4]], 5), r"ids row 1 holds item 4 twice"),
        (lambda: coverage([[0], [1, 2], [5, 0]], 5), r"ids row 2 holds item 5"),
        (lambda: coverage([[0], [1, 2, 1]], 5), r"ids row 1 holds item 1 twice"),
        (lambda: novelty([[0], []], [1, 2]), r"ids row 1 holds no item: leave out users without a list"),
        (lambda: gini(([0, 3, 1], [0, 1, 2]), 5), r"ids offsets must start at 0, never decrease and end at .* 3"),
        (lambda: gini(([], [0]), 5), r"ids has no rows"),
        (lambda: coverage([[0]], 2**63), r"num_items = 9223372036854775808: pass a whole number from 1 to 922337203"),
        (lambda: coverage([[0]], 0), r"num_items = 0: pass a whole number from 1"),
        (lambda: gini([[0]], 2.5), r"num_items = 2.5"),
        (lambda: novelty([[0, 3]], [1, 2, 3]), r"ids row 0 holds item 3: item indexes run from 0 to 2"),
        (lambda: novelty([[0]], [[1, 2]]), r"popularity has shape \(1, 2\): one flat row of integers"),
        (lambda: novelty([[0]], [0.5, 0.5]), r"popularity holds values of type float64: integers are needed"),
        (lambda: novelty([[0]], [3, 2, -1]), r"popularity of item 2 is -1: a number of interactions is 0 or more"),
        (lambda: novelty([[0]], [0, 0]), r"popularity counts no interaction"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()
