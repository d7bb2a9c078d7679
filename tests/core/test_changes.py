"""An index notices that its items have changed, whatever wrote them."""

import time
from pathlib import Path

import numpy as np
import pytest

from langptune_rs import ItemIndex, ShardedIndex
from langptune_rs.errors import InputError
from langptune_rs.evaluation.changes import SAMPLED, Watched

USERS = np.ones((2, 8), np.float32)
QUESTIONS = {
    "rank": lambda index: index.rank(USERS, [0, 1]),
    "score": lambda index: index.score(USERS, [0, 1]),
    "count_above": lambda index: index.count_above(USERS, [0, 1], np.zeros(2, np.float32)),
    "search": lambda index: index.search(USERS, 3),
    "score_targets": lambda index: index.score_targets(USERS, [0, 1], temperature=1.0),
    "candidates": lambda index: index.candidates(USERS, 3),
    "a shard": lambda index: ShardedIndex([index]).search(USERS, 3),
}


def made(num_items: int = 300) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((num_items, 8), dtype=np.float32)


def assert_refused(index: ItemIndex) -> None:
    with pytest.raises(InputError, match=r"item_embeddings has changed since .*, item_embeddings\.copy\(\), before"):
        index.rank(USERS, [0, 1])


@pytest.mark.parametrize("question", QUESTIONS)
def test_no_question_is_answered_about_changed_items(question):
    items = made()
    index = ItemIndex(items)
    items *= 2
    with pytest.raises(InputError, match="item_embeddings has changed"):
        QUESTIONS[question](index)


@pytest.mark.parametrize(
    "change",
    [
        lambda items: items.__setitem__(7, 0),
        lambda items: items.__setitem__(slice(None), items[::-1].copy()),
        lambda items: items.reshape(-1)[::8].__imul__(-1),
        lambda items: items[5:9].fill(np.nan),
        lambda items: np.negative(items, out=items),
        lambda items: items.T[3].sort(),
        lambda items: items.view(np.uint8).fill(0),
        lambda items: np.random.default_rng(1).shuffle(items),
    ],
)
def test_any_view_may_have_written(change):
    items = made()
    index = ItemIndex(items)
    before = index.rank(USERS, [0, 1])
    np.testing.assert_array_equal(index.rank(USERS, [0, 1]), before)
    change(items)
    assert_refused(index)


def test_items_that_are_as_they_were_are_ranked_again():
    items = made()
    kept = items.copy()
    index, of_a_copy = ItemIndex(items), ItemIndex(items.copy())
    before = index.rank(USERS, [0, 1])
    items += 1
    np.testing.assert_array_equal(of_a_copy.rank(USERS, [0, 1]), before)
    items[:] = kept
    np.testing.assert_array_equal(index.rank(USERS, [0, 1]), before)


def test_a_tensor_that_shares_the_memory_may_have_written():
    torch = pytest.importorskip("torch")
    tensor = torch.from_numpy(made())
    index = ItemIndex(tensor.numpy())
    tensor.mul_(0.5)
    assert_refused(index)


@pytest.mark.parametrize("mode", ["r", "c", "r+"])
def test_a_mapped_file_may_have_been_written(tmp_path: Path, mode):
    path = tmp_path / "items.npy"
    np.save(path, made())
    items = np.load(path, mmap_mode=mode)
    index = ItemIndex(items)
    index.rank(USERS, [0, 1])
    if mode == "c":
        items[2] = 0
    else:
        np.load(path, mmap_mode="r+")[2] = 0
    assert_refused(index)


@pytest.mark.parametrize("num_items", [1, 2, SAMPLED // 8, SAMPLED // 8 + 1, SAMPLED // 2])
def test_every_row_of_a_catalog_of_some_thousand_items_is_watched(num_items):
    items = made(num_items)
    watched = Watched(items, "items")
    for row in {0, num_items // 3, num_items - 1}:
        items[row] += 1
        with pytest.raises(InputError):
            watched.check()
        items[row] -= 1
        watched = Watched(items, "items")


def test_a_run_of_rows_of_a_long_catalog_is_watched():
    items = made(50_000)
    watched = Watched(items, "items")
    rows = 2 * 50_000 // SAMPLED + 2
    for first in (0, 12_345, 50_000 - rows):
        items[first : first + rows] *= -1
        with pytest.raises(InputError):
            watched.check()
        items[first : first + rows] *= -1
        watched.check()


def is_noticed(watched: Watched) -> bool:
    try:
        watched.check()
    except InputError:
        return True
    return False


@pytest.mark.parametrize(("num_items", "dim"), [(100_000, 384), (100_000, 16), (SAMPLED + 1, 8)])
def test_every_row_of_a_long_catalog_is_watched(num_items, dim):
    """At once where a call serves many users, otherwise before as many users are served as there are turns."""
    items = np.random.default_rng(0).standard_normal((num_items, dim), dtype=np.float32)
    watched = Watched(items, "items")
    assert watched.num_turns < 15
    for row in (0, 61_803 % num_items, num_items - 1):
        items[row] *= -1
        with pytest.raises(InputError):
            watched.check(watched.num_turns)
        noticed = [is_noticed(watched) for _ in range(watched.num_turns)]
        assert noticed[-1], "and what was noticed once is noticed again"
        items[row] *= -1
        watched.check(10**6)


def test_one_changed_row_is_refused_in_the_calls_of_an_index():
    items = made(100_000)
    index = ItemIndex(items)
    users = np.ones((64, 8), np.float32)
    index.rank(users, np.arange(64))
    items[77_777] = 0
    with pytest.raises(InputError, match="item_embeddings has changed"):
        index.rank(users, np.arange(64))


def test_a_mapped_file_is_sampled(tmp_path: Path):
    np.save(tmp_path / "items.npy", made(50_000))
    for mode in ("r", "c"):
        items = np.load(tmp_path / "items.npy", mmap_mode=mode)
        for array in (items, np.asarray(items), items[:40_000]):
            assert len(Watched(array, "items")._places) == SAMPLED


def test_not_a_number_is_no_change():
    items = np.full((3, 2), np.nan, np.float32)
    Watched(items, "items").check()
    Watched(items[:, :0], "items").check()


@pytest.mark.alone
@pytest.mark.parametrize("shape", [(100_000, 384), (2_000_000, 16)])
def test_the_check_costs_next_to_nothing(shape):
    items = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    index = ItemIndex(items)
    users = items[:1].copy()

    def seconds(work) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    rank = min(seconds(lambda: index.rank(users, [5])) for _ in range(7))
    check = min(seconds(index._watched.check) for _ in range(7))
    assert check < 0.1 * rank
