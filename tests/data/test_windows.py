"""Sessions are cut from a user's interactions as the rule says, whatever the interactions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.data.preparing.windows import all_windows, cut_sessions, last_window

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


def cut(user_items, rule):
    """The places of each session, and the users and items that they are places in."""
    users, items = (
        np.array([pair[i] for pair in ((user, item) for user in user_items for item in user_items[user])], np.uint32)
        for i in (0, 1)
    )
    return cut_sessions(users, items, rule, history_length=3), users, items


many_lists = st.dictionaries(st.integers(0, 5), item_lists, max_size=4)


@pytest.mark.parametrize("rule", ["last", "all"])
@given(many_lists)
def test_sessions_are_of_one_user_in_order_and_distinct(rule, user_items):
    sessions, users, items = cut(user_items, rule)
    assert sessions.shape[1:] == (4,)
    for places in sessions:
        assert places.tolist() == sorted(places)
        assert len(set(users[places])) == 1
        assert len(set(items[places])) == 4
    assert sessions[:, 0].tolist() == sorted(sessions[:, 0])


@given(many_lists)
def test_last_makes_one_session_of_every_user_with_enough_distinct_items(user_items):
    sessions, users, _ = cut(user_items, "last")
    assert users[sessions[:, 0]].tolist() == [user for user, items in user_items.items() if len(set(items)) >= 4]


@given(many_lists)
def test_first_takes_the_oldest_where_the_target_is_new(user_items):
    sessions, users, _ = cut(user_items, "first")
    wanted = [user for user, items in user_items.items() if len(items) >= 4 and items[3] not in items[:3]]
    assert users[sessions[:, 0]].tolist() == wanted
    assert all((np.diff(places) == 1).all() for places in sessions)
