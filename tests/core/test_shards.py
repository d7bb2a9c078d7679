"""A catalog cut into shards gives the bits of one index."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs import ItemIndex, Ragged, ShardedIndex, ShardOnDisk
from langptune_rs.errors import InputError
from langptune_rs.evaluation import merge_candidates

KERNELS = ItemIndex.kernels()


def cut(items, cuts):
    """The shards of a catalog, each with another kernel than the one before where the CPU has several."""
    bounds = sorted({0, len(items), *(cut % len(items) for cut in cuts)})
    shards = []
    for number, (start, end) in enumerate(pairwise(bounds)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LANGPTUNE_KERNEL", KERNELS[number % len(KERNELS)])
            shards.append(ItemIndex(items[start:end], first_item=start))
    return shards


@st.composite
def problems(draw):
    """Users, a catalog in shards, ragged targets and exclusions; whole numbers half of the time, whose scores tie."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_users, num_items, dim = draw(st.integers(0, 9)), draw(st.integers(1, 200)), draw(st.integers(1, 40))
    whole = draw(st.booleans())

    def embeddings(rows):
        values = rng.integers(-2, 3, (rows, dim)) if whole else rng.standard_normal((rows, dim))
        return values.astype(np.float32)

    items = embeddings(num_items)
    if draw(st.booleans()):
        items[num_items // 2 :] = items[: num_items - num_items // 2]
    orders = [rng.permutation(num_items) for _ in range(num_users)]
    targets = [order[: rng.integers(0, 6)] for order in orders]
    exclude = [order[len(row) :][: rng.integers(0, num_items)] for order, row in zip(orders, targets, strict=True)]
    return embeddings(num_users), items, cut(items, draw(st.lists(st.integers(0, 200), max_size=5))), targets, exclude


@given(problems(), st.sampled_from(["index", "min", "max", "mean"]))
def test_ranks_have_the_bits_of_one_index(problem, ties):
    users, items, shards, targets, exclude = problem
    expected = ItemIndex(items).rank(users, targets, exclude=exclude, ties=ties)
    ranks = ShardedIndex(shards).rank(users, targets, exclude=exclude, ties=ties)
    np.testing.assert_array_equal(ranks.offsets, expected.offsets)
    assert ranks.values.dtype == expected.values.dtype
    assert ranks.values.tobytes() == expected.values.tobytes()


@given(problems(), st.floats(0, 1))
def test_searches_have_the_bits_of_one_index(problem, part):
    users, items, shards, _, exclude = problem
    left = len(items) - max((len(row) for row in exclude), default=0)
    k = max(1, int(part * left))
    expected = ItemIndex(items).search(users, k, exclude=exclude)
    for found, wanted in zip(ShardedIndex(shards).search(users, k, exclude=exclude), expected, strict=True):
        assert (found.dtype, found.shape, found.tobytes()) == (wanted.dtype, wanted.shape, wanted.tobytes())


def test_a_search_for_all_items_is_one_of_shards_that_hold_fewer():
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 7), dtype=np.float32) for n in (4, 50))
    found = ShardedIndex(cut(items, [1, 33])).search(users, 50)
    np.testing.assert_array_equal(found[1], ItemIndex(items).search(users, 50)[1])


ITEMS = np.array([[1], [2], [1], [0], [1]], dtype=np.float32)
USERS = np.ones((2, 1), dtype=np.float32)


@pytest.fixture
def shards():
    """Three items of score 1, one of 2 and one of 0 for each of two users, in three shards and out of order."""
    return [ItemIndex(ITEMS[start:end], first_item=start) for start, end in ((1, 4), (4, 5), (0, 1))]


@pytest.fixture
def sharded(shards):
    return ShardedIndex(shards)


@pytest.mark.parametrize("targets", [[2, 4], np.array([2, 4]), np.array([[2], [4]]), [[2], [4]], ([0, 1, 2], [2, 4])])
def test_ranks_have_the_form_of_the_targets(sharded, targets):
    whole = ItemIndex(ITEMS).rank(USERS, targets, exclude=[[0], []])
    ranks = sharded.rank(USERS, targets, exclude=[[0], []])
    assert type(ranks) is type(whole)
    assert [np.ravel(row).tolist() for row in ranks] == [[2], [4]]


def test_what_a_shard_says_is_in_the_form_of_the_targets(sharded):
    index = ItemIndex(ITEMS[2:], first_item=2)
    assert index.ids == range(2, 5)
    assert (len(sharded), repr(sharded)) == (5, "ShardedIndex(5 items in 3 shards)")
    targets = np.array([[2, 1], [4, 0]])
    scores = index.score(USERS, targets)
    np.testing.assert_array_equal(scores, [[1, np.nan], [1, np.nan]])
    scores = np.fmax(scores, ItemIndex(ITEMS[:2]).score(USERS, targets))
    assert scores.dtype == np.float32
    assert index.count_above(USERS, targets, scores).tolist() == [[0, 0], [1, 0]]
    assert index.count_above(USERS, targets, scores, ties="mean").tolist() == [[0.5, 0], [0.5, 1]]
    scores, ids = index.candidates(USERS, 2, exclude=[[0, 4], [1, 2, 4]])
    assert [row.tolist() for row in ids] == [[2, 3], [3]]
    assert [row.tolist() for row in scores] == [[1, 0], [0]]


def test_one_shard_ranks_and_searches_by_the_indexes_of_the_catalog():
    index = ItemIndex(ITEMS, first_item=2**40)
    assert index.rank(USERS, [2**40 + 2, 2**40 + 4], exclude=[[2**40], []]).tolist() == [2, 4]
    assert index.search(USERS, 2)[1].tolist() == [[2**40 + 1, 2**40]] * 2


def pickled(function):
    """The function after a journey that leaves its arrays unaligned."""
    buffers = []
    there = pickle.dumps(function, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(there, buffers=[memoryview(b"\0" + bytes(buffer.raw()))[1:] for buffer in buffers])


def test_any_map_runs_the_shards_and_can_pickle_what_it_runs(shards):
    with ThreadPoolExecutor(3) as threads:

        def through_pickle(function, shards):
            return threads.map(pickled(function), shards)

        mapped = ShardedIndex(shards, map=through_pickle)
        assert mapped.rank(USERS, [2, 4], exclude=[[0], []]).tolist() == [2, 4]
        assert mapped.search(USERS, 2, exclude=[[0], []])[1].tolist() == [[1, 2], [1, 0]]


@pytest.mark.parametrize(
    ("first_items", "message"),
    [
        ([], r"shards is empty: at least one is needed"),
        ([0, 0], r"item 0 is in two shards: set each shard's `first_item`"),
        ([4, 0], r"item 4 is in two shards"),
        ([0, 6], r"item 5 is in no shard"),
        ([1, 6], r"item 0 is in no shard"),
    ],
)
def test_every_item_is_in_one_shard(first_items, message):
    with pytest.raises(InputError, match=message):
        ShardedIndex([ItemIndex(ITEMS, first_item=first_item) for first_item in first_items])


@pytest.mark.parametrize(
    ("shards", "message"),
    [
        ([1, 2], r"a shard is a int: pass ItemIndexes"),
        (ITEMS, r"shards is a ndarray: pass a list of ItemIndex"),
        ("ab", r"shards is a str"),
        (None, r"shards is a NoneType"),
    ],
)
def test_shards_are_indexes(shards, message):
    with pytest.raises(InputError, match=message):
        ShardedIndex(shards)


def test_a_shard_on_disk_opens_its_file_anew(tmp_path, monkeypatch):
    np.save(tmp_path / "items.npy", ITEMS[2:])
    monkeypatch.chdir(tmp_path)
    shard = ShardOnDisk("items.npy", first_item=2, keep_rounded=False)
    monkeypatch.chdir("/")
    for index in (shard, pickle.loads(pickle.dumps(shard)), copy.deepcopy(shard)):
        assert isinstance(index.item_embeddings, np.memmap)
        assert repr(index) == "ShardOnDisk(3 items, dim 1)"
        assert index.ids == range(2, 5)
        both = ShardedIndex([ItemIndex(ITEMS[:2]), index])
        assert both.rank(USERS, [2, 4], exclude=[[0], []]).tolist() == [2, 4]
    (tmp_path / "items.npy").unlink()
    with pytest.raises(InputError, match=r"items\.npy is no \.npy file that can be mapped .*: write it with np\.save"):
        copy.copy(shard)


@pytest.mark.parametrize("content", [b"", b"no array", pickle.dumps([1])])
def test_a_shard_on_disk_is_an_array(tmp_path, content):
    path = tmp_path / "items.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is no \.npy file that can be mapped"):
        ShardOnDisk(path)
    np.save(path, np.array([["a"]], dtype=object))
    with pytest.raises(InputError, match=r"is no \.npy file that can be mapped"):
        ShardOnDisk(path)
    np.save(path, np.eye(2))
    with pytest.raises(InputError, match=r"item_embeddings is float64"):
        ShardOnDisk(path)


@pytest.mark.parametrize("first_item", [-1, 0.0, None, True, 2**63 - 5, 2**70])
def test_the_first_item_is_a_whole_number(first_item):
    with pytest.raises(InputError, match=r"first_item = .*: pass a whole number from 0 to 9223372036854775802"):
        ItemIndex(ITEMS, first_item=first_item)


def test_a_shard_needs_items():
    with pytest.raises(InputError, match=r"item_embeddings has shape \(0, 1\): at least one row"):
        ItemIndex(ITEMS[:0], first_item=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"targets": [0, 5]}, r"targets row 1 holds item 5: item indexes run from 0 to 4"),
        ({"targets": [-1, 0]}, r"targets row 0 holds item -1"),
        ({"targets": [[0], [4, 1, 4]]}, r"targets row 1 holds item 4 twice"),
        ({"targets": [0]}, r"targets has 1 rows for 2 users"),
        ({"exclude": [[0], [5]]}, r"exclude row 1 holds item 5: item indexes run from 0 to 4"),
        ({"exclude": [[0], [3, 2]]}, r"targets row 1 holds item 2, which exclude row 1 takes out"),
        ({"exclude": [[0]]}, r"exclude has 1 rows for 2 users"),
        ({"ties": "random"}, r'ties = "random"'),
    ],
)
def test_what_cannot_be_ranked_is_refused_as_by_one_index(sharded, arguments, message):
    for index in (sharded, ItemIndex(ITEMS)):
        with pytest.raises(InputError, match=message):
            index.rank(USERS, **{"targets": [1, 2], **arguments})


@pytest.mark.parametrize(
    ("k", "exclude", "message"),
    [
        (0, None, r"k = 0: pass a whole number from 1"),
        (6, None, r"k = 6: the index holds only 5 items"),
        (4, [[], [0, 1, 1]], r"k = 4, but row 1 has only 3 items left to rank"),
        (1, [range(5), []], r"k = 1, but row 0 has only 0 items left"),
        (1, [[], [-1]], r"exclude row 1 holds item -1"),
    ],
)
def test_what_cannot_be_searched_is_refused_as_by_one_index(sharded, k, exclude, message):
    for index in (sharded, ItemIndex(ITEMS)):
        with pytest.raises(InputError, match=message):
            index.search(USERS, k, exclude=exclude)


def test_ids_of_other_shards_are_for_what_a_shard_contributes():
    index = ItemIndex(ITEMS, first_item=10)
    with pytest.raises(InputError, match=r"targets row 1 holds item 9: item indexes run from 10 to 14"):
        index.rank(USERS, [10, 9])
    with pytest.raises(InputError, match=r"exclude row 0 holds item 15: item indexes run from 10 to 14"):
        index.search(USERS, 1, exclude=[[15], []])
    with pytest.raises(InputError, match=r"exclude row 0 holds item -1"):
        index.candidates(USERS, 1, exclude=[[-1], []])


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], r"scores holds 1 values for 2 targets"),
        ([1.0, np.nan], r"scores row 1 is NaN for item 7: pass the score that the shard which holds this item"),
        ([-np.inf, 1.0], r"scores row 0 is -inf for item 1"),
        ([1, 2], r"scores holds values of type int64: float32 scores are needed"),
        (np.array([1.0, 2.0]), r"scores holds values of type float64: float32 scores are needed, as an index returns"),
        ([100.0, 2.0], r"scores row 0 is 100 for item 1, which scores 2 here: pass what `score` returns"),
    ],
)
def test_a_count_needs_the_score_of_every_target(scores, message):
    with pytest.raises(InputError, match=message):
        ItemIndex(ITEMS).count_above(USERS, [1, 7], scores)


SCORES = np.ones((2, 1), dtype=np.float32)


@pytest.mark.parametrize(
    ("found", "k", "message"),
    [
        ([(SCORES, [[3], [4]]), (SCORES, [[5], [4]])], 1, r"row 1 of what was found holds item 4 twice"),
        ([(SCORES, [[3], [4]])], 2, r"k = 2, but row 0 has only 1 items left"),
        ([(SCORES, [[3], [4]]), (SCORES[:1], [[3]])], 1, r"found has 1 rows for 2 users"),
        ([(SCORES, [[3], [4, 5]])], 1, r"scores and ids have rows of different length"),
        ([(SCORES, [[3], [-4]])], 1, r"ids row 1 holds item -4"),
        ([(SCORES, [[3], [4]])], 0, r"k = 0"),
        ([], 1, r"nothing was found: pass"),
        (np.zeros((2, 2)), 1, r"nothing was found: pass a list"),
        ([(SCORES, [[3], [4]]), SCORES], 1, r"what shard 1 found is a ndarray: pass the tuple \(scores, ids\)"),
        ([(SCORES,)], 1, r"what shard 0 found is a tuple"),
        ([(SCORES, [[3], [4]])], 2**70, r"k = 1180591620717411303424: pass a whole number from 1 to 922337203685477"),
        ([(np.float32([[0.5], [np.nan]]), [[3], [4]])], 1, r"scores row 1 is NaN: every score must be finite"),
        (
            [(SCORES.astype(np.float64), [[3], [4]])],
            1,
            r"scores holds values of type float64: float32 scores are needed",
        ),
    ],
)
def test_lists_that_cannot_be_merged(found, k, message):
    with pytest.raises(InputError, match=message):
        merge_candidates(found, k)


@pytest.mark.parametrize("ties", ["index", "min", "max", "mean"])
def test_a_score_that_is_not_the_items_own_is_refused_under_every_tie_rule(ties):
    index = ItemIndex(np.eye(4, dtype=np.float32))
    users = np.ones((2, 4), dtype=np.float32)
    with pytest.raises(InputError, match=r"scores row 1 is 0.5 for item 1, which scores 1 here"):
        index.count_above(users, [0, 1], [1.0, 0.5], ties=ties)


def test_zeros_of_either_sign_merge_by_item():
    scores, ids = merge_candidates([(np.array([[-0.0, 0.0]], dtype=np.float32), [[2, 3]])], 2)
    assert ids.tolist() == [[2, 3]]
    assert not np.signbit(scores).any()


def test_whole_searches_merge_too():
    one, other = (ItemIndex(ITEMS, first_item=first).search(USERS, 2) for first in (0, 5))
    scores, ids = merge_candidates([one, other], 3)
    assert (scores.tolist(), ids.tolist()) == ([[2, 2, 1]] * 2, [[1, 6, 0]] * 2)
    assert merge_candidates([(Ragged(np.array([0, 0]), SCORES[0, :0]), [[]]), (SCORES[:1], [[7]])], 1)[1] == 7


def test_log_probabilities_need_one_index():
    with pytest.raises(
        InputError, match=r"ShardedIndex\(10 items in 1 shards\) gives no log-probabilities: use `rank`"
    ):
        ShardedIndex([ItemIndex(np.eye(10, dtype=np.float32))]).score_targets(None, None, temperature=1.0)
