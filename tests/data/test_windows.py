"""Sessions are cut from a user's interactions as the rule says, whatever the interactions."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.data.windows import all_windows, cut_sessions, last_window

item_lists = st.lists(st.integers(0, 8), max_size=40)
sizes = st.integers(2, 5)


@given(item_lists, sizes)
def test_the_last_window_holds_the_newest_distinct_items(items, size):
    windows = last_window(items, size)
    newest_first = list(dict.fromkeys(reversed(items)))
    if len(newest_first) < size:
        assert windows == []
    else:
        assert [[items[place] for place in window] for window in windows] == [newest_first[:size][::-1]]
        assert windows[0] == sorted(windows[0])
        assert windows[0][-1] == len(items) - 1


@given(item_lists, sizes)
def test_all_windows_are_distinct_chronological_and_do_not_overlap(items, size):
    windows = all_windows(items, size)
    places = [place for window in windows for place in window]
    assert places == sorted(set(places))
    assert all(len({items[place] for place in window}) == size for window in windows)


@given(item_lists, sizes)
def test_all_windows_pass_over_nothing_but_repeats_and_the_incomplete_end(items, size):
    windows = all_windows(items, size)
    start = 0
    for window in windows:
        passed_over = [items[place] for place in range(start, window[-1]) if place not in window]
        assert set(passed_over) <= {items[place] for place in window}
        start = window[-1] + 1
    assert len(set(items[start:])) < size


def test_a_repeat_within_a_window_gives_way_to_a_later_item():
    assert all_windows([1, 2, 1, 3, 1, 4, 5], size=3) == [[0, 1, 3], [4, 5, 6]]


def interactions(user_items):
    rows = [(user, str(item)) for user, items in user_items.items() for item in items]
    return pl.DataFrame(rows, schema={"user_id": pl.String, "item_id": pl.String}, orient="row").with_columns(
        rating=pl.int_range(pl.len()).cast(pl.Float64),
        timestamp=pl.int_range(pl.len()).cast(pl.Float64),
        review_text=pl.format("review {}", pl.int_range(pl.len())),
    )


@pytest.mark.parametrize("rule", ["last", "all"])
@given(st.dictionaries(st.sampled_from("abcdef"), item_lists, max_size=4))
def test_sessions_keep_ratings_reviews_and_times_beside_their_items(rule, user_items):
    table = interactions(user_items)
    sessions = cut_sessions(table, rule, history_length=3)
    assert sessions["session_id"].to_list() == list(range(len(sessions)))
    for row in sessions.iter_rows(named=True):
        places = [int(rating) for rating in row["ratings"]] + [int(row["target_timestamp"])]
        assert places == sorted(places)
        assert table["item_id"][places].to_list() == [*row["history"], row["target"]]
        assert table["review_text"][places[:-1]].to_list() == row["reviews"]
        assert set(table["user_id"][places]) == {row["user_id"]}
        assert len({*row["history"], row["target"]}) == 4


@given(st.dictionaries(st.sampled_from("abcdef"), item_lists, max_size=4))
def test_last_makes_one_session_of_every_user_with_enough_distinct_items(user_items):
    sessions = cut_sessions(interactions(user_items), "last", history_length=3)
    assert sessions["user_id"].to_list() == [user for user, items in user_items.items() if len(set(items)) >= 4]
