"""What ItemIndex refuses, each with an error that names the argument and the row."""

import copy
import pickle

import numpy as np
import pytest

from langptune_rs import ItemIndex, Ragged
from langptune_rs.errors import InputError

USERS = np.ones((3, 4), dtype=np.float32)
ITEMS = np.eye(5, 4, dtype=np.float32)
TARGETS = [0, 1, 2]


def with_value(array, row, column, value):
    array = array.copy()
    array[row, column] = value
    return array


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (ITEMS.tolist(), r"item_embeddings is a list: pass a numpy array of float32"),
        (ITEMS.astype(np.float64), r"item_embeddings is float64: .* pass item_embeddings\.astype\(np\.float32\)"),
        (ITEMS.astype(">f4"), r"item_embeddings is >f4"),
        (ITEMS[0], r"item_embeddings has shape \(4,\): .* pass item_embeddings\[None, :\]"),
        (ITEMS[None], r"item_embeddings has shape \(1, 5, 4\)"),
        (ITEMS.T, r"item_embeddings is not C-contiguous"),
        (ITEMS[:, ::2], r"item_embeddings is not C-contiguous"),
        (np.frombuffer(b"\0" * 9, np.uint8)[1:].view(np.float32)[None], r"item_embeddings is not C-contiguous"),
        (ITEMS[:0], r"item_embeddings has shape \(0, 4\): at least one row"),
        (ITEMS[:, :0], r"item_embeddings has shape \(5, 0\): at least one row and one column"),
        (with_value(ITEMS, 3, 2, np.nan), r"item_embeddings row 3, column 2 is NaN"),
        (with_value(ITEMS, 1, 0, -np.inf), r"item_embeddings row 1, column 0 is -inf"),
    ],
)
def test_items(items, message):
    with pytest.raises(InputError, match=message):
        ItemIndex(items)


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (USERS[0], r"user_embeddings has shape \(4,\)"),
        (USERS.astype(np.float16), r"user_embeddings is float16"),
        (np.asfortranarray(USERS), r"user_embeddings is not C-contiguous"),
        (np.ones((3, 6), dtype=np.float32), r"user_embeddings have 6 dimensions and item_embeddings 4"),
        (np.ones((3, 0), dtype=np.float32), r"user_embeddings has shape \(3, 0\)"),
        (with_value(USERS, 2, 1, np.inf), r"user_embeddings row 2, column 1 is inf"),
        (with_value(USERS, 1, 3, 3e38), r"user_embeddings row 1 has norm 3.0e38, .* could overflow float32: normalise"),
    ],
)
def test_users(users, message):
    index = ItemIndex(ITEMS)
    with pytest.raises(InputError, match=message):
        index.rank(users, TARGETS)
    with pytest.raises(InputError, match=message):
        index.score_targets(users, TARGETS, temperature=1.0)
    with pytest.raises(InputError, match=message):
        index.search(users, 2)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([0, 1], r"targets has 2 rows for 3 users"),
        ([0, 1, 5], r"targets row 2 holds item 5: item indexes run from 0 to 4"),
        ([0, -1, 2], r"targets row 1 holds item -1"),
        ([[0], [1], [2, 3, 2]], r"targets row 2 holds item 2 twice"),
        ([0.0, 1.0, 2.0], r"targets holds values of type float64: integers are needed"),
        ([[0], [1.5], [2]], r"targets row 1 holds values of type float64"),
        ([[0], ["1"], [2]], r"targets row 1 holds values of type <U1"),
        ([[0], [[1]], [2]], r"targets row 1 has shape \(1, 1\)"),
        ([0, [1], 2], r"targets row 0 has shape \(\)"),
        (np.array([True, False, True]), r"targets holds values of type bool"),
        (np.zeros((3, 1, 1), dtype=int), r"targets has shape \(3, 1, 1\)"),
        ("012", r"targets is a str"),
        (7, r"targets is a int"),
        (np.array([0, 2**64 - 5, 2**63], dtype=np.uint64), r"targets holds 18446744073709551611 at place 1: pass int"),
        ([[0], [2**63], [1]], r"targets row 1 holds 9223372036854775808 at place 0: pass integers up to 92233720"),
        ((0, 1, 2), r"targets is a tuple of 3: a tuple means \(offsets, values\)"),
        (([0, 1, 2], [0, 1, 2]), r"targets offsets start at 0 and end at 2: .* number of values \(3\)"),
        (([1, 1, 2, 3], [0, 1, 2]), r"targets offsets start at 1"),
        (([0, 2, 1, 3], [0, 1, 2]), r"targets offsets decrease after row 1"),
        (([], []), r"targets offsets are empty"),
        (([0.0, 1.0], [0]), r"targets offsets holds values of type float64"),
        (Ragged(np.array([0, 1, 2]), np.array([0, 9])), r"targets row 1 holds item 9"),
    ],
)
def test_targets(targets, message):
    with pytest.raises(InputError, match=message):
        ItemIndex(ITEMS).rank(USERS, targets)
    with pytest.raises(InputError, match=message):
        ItemIndex(ITEMS).score_targets(USERS, targets, temperature=1.0)


@pytest.mark.parametrize(
    ("exclude", "message"),
    [
        ([[3], [4]], r"exclude has 2 rows for 3 users"),
        ([[3], [4], [3, 5]], r"exclude row 2 holds item 5"),
        (np.array([[3, 4], [3, -1], [3, 4]]), r"exclude row 1 holds item -1"),
        ([[3], [4, 1], []], r"targets row 1 holds item 1, which exclude row 1 takes out of the ranking"),
        ([3, 4, 3], r"exclude row 0 has shape \(\)"),
        (np.array([3, 4, 3]), r"exclude has shape \(3,\): an array of rows has two dimensions"),
        ({1: [3]}, r"exclude is a dict"),
    ],
)
def test_exclusions(exclude, message):
    with pytest.raises(InputError, match=message):
        ItemIndex(ITEMS).rank(USERS, TARGETS, exclude=exclude)
    with pytest.raises(InputError, match=message):
        ItemIndex(ITEMS).score_targets(USERS, TARGETS, exclude, temperature=1.0)


@pytest.mark.parametrize(
    ("temperature", "message"),
    [
        (0, r"temperature = 0: pass a finite number above 0"),
        (-0.1, r"temperature = -0.1: pass a finite number above 0"),
        (np.nan, r"temperature = NaN: pass a finite number above 0"),
        (np.inf, r"temperature = inf: pass a finite number above 0"),
        (1e-300, r"at least 1e-200"),
        ("0.1", r"temperature = '0.1': pass a number"),
        (True, r"temperature = True: pass a number"),
    ],
)
def test_temperatures(temperature, message):
    with pytest.raises(InputError, match=message):
        ItemIndex(ITEMS).score_targets(USERS, TARGETS, temperature=temperature)


@pytest.mark.parametrize("k", [0, -1, 2.0, "5", None, True, 2**63, 2**64, 2**70])
def test_k_is_a_whole_number(k):
    for work in (ItemIndex(ITEMS).search, ItemIndex(ITEMS).candidates):
        with pytest.raises(InputError, match=r"k = .*: pass a whole number from 1 to 9223372036854775807"):
            work(USERS, k)


def test_k_larger_than_what_is_left():
    index = ItemIndex(ITEMS)
    with pytest.raises(InputError, match=r"k = 6: the index holds only 5 items"):
        index.search(USERS, 6)
    with pytest.raises(InputError, match=r"k = 4, but row 1 has only 3 items left to rank: pass k <= 3"):
        index.search(USERS, 4, exclude=[[], [0, 1, 1], [0, 1]])
    with pytest.raises(InputError, match=r"k = 1, but row 2 has only 0 items left"):
        index.search(USERS, 1, exclude=[[], [], range(5)])


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_an_index_stays_where_it_is(copied):
    with pytest.raises(InputError, match=r"ItemIndex\(5 items, dim 4\) cannot be pickled or copied.*ShardOnDisk"):
        copied(ItemIndex(ITEMS))


@pytest.mark.parametrize("row", ["a", slice(0, 1), None, 0.0, [0]])
def test_a_row_is_a_whole_number(row):
    rows = Ragged(np.array([0, 1]), np.array([7]))
    with pytest.raises(InputError, match=r"row .*: pass one whole number"):
        rows[row]


def test_an_unknown_tie_rule():
    with pytest.raises(InputError, match=r'ties = "random": pass "index", "min", "max" or "mean"'):
        ItemIndex(ITEMS).rank(USERS, TARGETS, ties="random")
