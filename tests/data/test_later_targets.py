"""Later targets are those that a loop over a user's train sessions finds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.config.data import DataConfig
from langptune_rs.data import prepare
from langptune_rs.data.store.later_targets import later_targets
from langptune_rs.data.store.sessions import SPLITS, Sessions

HISTORY = 2
NUM_ITEMS = 9  # so few that users repeat items


@st.composite
def windows(draw):
    """A user's sessions, oldest first: a split, and HISTORY + 1 distinct items."""
    window = st.lists(st.integers(0, NUM_ITEMS - 1), min_size=HISTORY + 1, max_size=HISTORY + 1, unique=True)
    return draw(st.lists(st.tuples(st.sampled_from(SPLITS), window), min_size=1, max_size=8))


users = st.dictionaries(st.sampled_from("abcdé"), windows(), min_size=1).filter(
    lambda users: any(split == "train" for own in users.values() for split, _ in own)
)


def sessions_of(users, seed=0):
    """Sessions with ids in no order."""
    rows = [(user, split, window) for user, own in users.items() for split, window in own]
    items = np.array([window for *_, window in rows], dtype=np.int32)
    return Sessions(
        session_ids=np.random.default_rng(seed).permutation(len(rows)) * 7,
        user_ids=[user for user, *_ in rows],
        histories=items[:, :-1],
        ratings=np.full((len(rows), HISTORY), np.nan, dtype=np.float32),
        reviews=[[None] * HISTORY] * len(rows),
        targets=items[:, -1],
        splits=[split for _, split, _ in rows],
    )


def brute_force(users, num_targets):
    """For each train session, in the order of the sessions."""
    found = []
    for own in users.values():
        held_out = {window[-1] for split, window in own if split != "train"}
        for i, (split, window) in enumerate(own):
            if split == "train":
                later = [item for split, window in own[i + 1 :] if split == "train" for item in window]
                new = [item for item in dict.fromkeys(later) if item not in held_out and item not in window]
                found.append([window[-1], *new][:num_targets])
    return found


@given(users, st.integers(1, 12))
def test_they_are_those_that_a_loop_finds(users, num_targets):
    sessions = sessions_of(users)
    found = later_targets(sessions, sessions.select("train"), num_targets)
    assert [targets.tolist() for targets in found] == brute_force(users, num_targets)
    assert {targets.dtype for targets in found} == {np.dtype(np.int64)}


@given(users, st.integers(1, 12), st.randoms(use_true_random=False))
def test_each_session_has_its_own_whichever_others_are_chosen(users, num_targets, random):
    sessions = sessions_of(users)
    train = sessions.select("train")
    rows = random.sample(range(len(train)), random.randint(1, len(train)))
    chosen = later_targets(sessions, train.take(rows), num_targets)
    every = later_targets(sessions, train, num_targets)
    assert [targets.tolist() for targets in chosen] == [every[row].tolist() for row in rows]


@given(users)
def test_held_out_sessions_give_nothing_but_what_is_left_out(users):
    """Another history of a held-out session changes nothing, and its target is in no train session's later ones."""
    sessions = sessions_of(users)
    train, others = sessions.select("train"), sessions.histories.copy()
    others[~sessions.splits.mask("train")] = NUM_ITEMS + 5
    changed = Sessions(**{**vars(sessions), "histories": others})
    found, again = (later_targets(each, train, 12) for each in (sessions, changed))
    assert [targets.tolist() for targets in found] == [targets.tolist() for targets in again]
    held_out = {
        (user, target)
        for user, target, split in zip(sessions.user_ids, sessions.targets.tolist(), sessions.splits, strict=True)
        if split != "train"
    }
    assert not {(user, item) for user, own in zip(train.user_ids, found, strict=True) for item in own[1:]} & held_out


def test_more_targets_begin_with_the_fewer():
    users = {"a": [("train", [0, 1, 2]), ("test", [3, 4, 5]), ("train", [6, 0, 7]), ("train", [5, 8, 6])]}
    sessions = sessions_of(users)
    train = sessions.select("train")
    assert [targets.tolist() for targets in later_targets(sessions, train, 9)] == [[2, 6, 7, 8], [7, 8], [6]]
    for num_targets in (1, 2, 3, 4, 10**15):
        found = later_targets(sessions, train, num_targets)
        assert [targets.tolist() for targets in found] == [
            targets[:num_targets] for targets in ([2, 6, 7, 8], [7, 8], [6])
        ]


@pytest.mark.parametrize("split", ["session", "leave-last-out", "temporal"])
def test_of_a_prepared_data_set_they_are_what_its_train_sessions_hold(logs, tmp_path, split):
    config = DataConfig(split=split, windows="all", history_length=2, max_item_tokens=None, max_history_tokens=None)
    data = prepare(logs, tmp_path / "data", config)
    train = data.sessions.select("train")
    own = {user: set() for user in train.user_ids}
    for user, history, target in zip(train.user_ids, train.histories.tolist(), train.targets.tolist(), strict=True):
        own[user] |= {*history, target}
    found = later_targets(data.sessions, train, 5)
    assert [targets[0] for targets in found] == train.targets.tolist()
    assert all(set(targets.tolist()) <= own[user] for user, targets in zip(train.user_ids, found, strict=True))
    assert max(map(len, found)) == 5


def test_one_session_of_each_user_has_no_later_targets(logs, tmp_path):
    config = DataConfig(windows="last", max_item_tokens=None, max_history_tokens=None)
    data = prepare(logs, tmp_path / "data", config)
    assert {len(targets) for targets in later_targets(data.sessions, data.sessions.select("train"), 5)} == {1}
