"""Filters keep what they should, and say when nothing is left."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.data.preparing.filters import Steps, has_text, in_order, k_core, num_repeats, without_duplicates
from langptune_rs.data.readers.reader import ITEM_SCHEMA
from langptune_rs.errors import DataError

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60)


def core(pairs, k):
    """The rows of the k-core."""
    users, items = np.array(pairs, dtype=np.uint32).reshape(-1, 2).T
    return np.flatnonzero(k_core(users, items, k)).tolist()


def log(rows):
    columns = ("user", "item", "timestamp", "position", "line")
    types = {name: pl.UInt32 if name in ("user", "item") else pl.Float64 for name in columns}
    return pl.DataFrame(rows, schema=types, orient="row")


def brute_force_core(pairs, k):
    """Remove one interaction at a time."""
    left = list(enumerate(pairs))
    while True:
        users = Counter(user for _, (user, _) in left)
        items = Counter(item for _, (_, item) in left)
        weak = [entry for entry in left if users[entry[1][0]] < k or items[entry[1][1]] < k]
        if not weak:
            return [row for row, _ in left]
        left.remove(weak[0])


@given(pairs, st.integers(1, 5))
def test_k_core_is_the_fixed_point_in_the_order_of_the_rows(pairs, k):
    assert core(pairs, k) == brute_force_core(pairs, k)


def test_steps_are_counted_and_an_optional_one_only_where_it_removed_something():
    steps = Steps()
    rows = log([(0, 1, None, None, 1), (0, None, None, None, 2), (2, 1, None, None, 3)])
    assert steps.count("source", rows) is rows
    steps.count("nothing", rows, optional=True)
    steps.count("something", rows[:2], optional=True)
    assert steps.counts == [
        {"step": "source", "users": 2, "items": 1, "interactions": 3},
        {"step": "something", "users": 1, "items": 1, "interactions": 2},
    ]
    with pytest.raises(DataError, match=r'Nothing is left after the step "7-core"\. Lower min_interactions'):
        steps.count("7-core", rows[:0])


def test_interactions_are_ordered_by_time_then_position_then_place_in_the_file():
    keys = [(20, 1), (10, 2), (10, 1), (None, 5), (None, None), (10, 1)]
    rows = log([(0, i, time, position, i) for i, (time, position) in enumerate(keys)])
    assert in_order(rows)["item"].to_list() == [4, 3, 2, 5, 1, 0]


def test_what_is_there_twice_at_one_time_counts_once_and_what_has_no_time_always():
    keys = [(0, 7, 5, None), (0, 7, 5, None), (0, 7, 6, None), (1, 7, 5, None), (0, 8, 5, None), (0, 7, 5, 1)]
    positions = [(2, 7, None, 1), (2, 7, None, 2), (2, 7, None, 1)]
    timeless = [(3, 7, None, None)] * 2
    rows = log([(*key, line) for line, key in enumerate(keys + positions + timeless)])
    assert without_duplicates(rows)["line"].to_list() == [0, 2, 3, 4, 5, 6, 7, 9, 10]


@given(pairs)
def test_repeats_are_counted(pairs):
    assert num_repeats(log([(*pair, None, None, 1) for pair in pairs])) == len(pairs) - len(set(pairs))


@pytest.mark.parametrize(
    ("title", "description", "categories", "kept"),
    [("T", None, [], True), (None, "D", [], True), (None, None, ["C"], True), (None, "", [], False)],
)
def test_an_item_needs_one_text(title, description, categories, kept):
    items = pl.DataFrame([("1", title, description, categories, "9.5", 4.0, 1)], schema=ITEM_SCHEMA, orient="row")
    assert has_text(items).to_list() == [kept]
