"""Filters keep what they should, and say when nothing is left."""

from collections import Counter

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.data.filters import count, has_text, in_order, k_core
from langptune_rs.data.sources.raw import INTERACTION_SCHEMA, ITEM_SCHEMA
from langptune_rs.errors import DataError

pairs = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=60)


def table(pairs):
    schema = {"user_id": pl.String, "item_id": pl.String}
    return pl.DataFrame([(str(u), str(i)) for u, i in pairs], schema=schema, orient="row").with_row_index("row")


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
    assert k_core(table(pairs), k)["row"].to_list() == brute_force_core(pairs, k)


def test_an_empty_step_is_named():
    with pytest.raises(DataError, match=r'Nothing is left after the step "7-core"\. Lower min_interactions'):
        count("7-core", k_core(table([(1, 1), (1, 2)]), 7))


def test_interactions_are_ordered_by_time_then_position_then_place_in_the_file():
    keys = [(20, 1), (10, 2), (10, 1), (None, 5), (None, None), (10, 1)]
    rows = [("u", str(i), None, time, position, None, i) for i, (time, position) in enumerate(keys)]
    interactions = pl.DataFrame(rows, schema=INTERACTION_SCHEMA, orient="row")
    assert in_order(interactions)["item_id"].to_list() == ["4", "3", "2", "5", "1", "0"]


@pytest.mark.parametrize(
    ("title", "description", "categories", "kept"),
    [("T", None, [], True), (None, "D", [], True), (None, None, ["C"], True), (None, "", [], False)],
)
def test_an_item_needs_one_text(title, description, categories, kept):
    items = pl.DataFrame([("1", title, description, categories, "9.5", 4.0, 1)], schema=ITEM_SCHEMA, orient="row")
    assert len(has_text(items)) == kept
