"""Splits have the paper's shares, depend only on the seed, and hold each session once."""

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.data.preparing.splits import assign, by_session, leave_last_out, reference, temporal
from langptune_rs.errors import DataError


@given(st.integers(3, 3000), st.integers(0, 2**32))
def test_session_split_has_the_paper_s_shares(n, seed):
    sizes = Counter(assign(pl.DataFrame({"user_id": map(str, range(n))}), "session", seed)["split"])
    assert sizes["validation"] == sizes["test"] == max(1, round(0.08 * n))
    assert sizes.total() == n


def test_the_paper_s_sizes_can_be_asked_for():
    sessions = pl.DataFrame({"user_id": map(str, range(17_482))})
    sizes = Counter(assign(sessions, "session", 0, held_out=1_392)["split"])
    assert sizes == {"train": 14_698, "validation": 1_392, "test": 1_392}
    with pytest.raises(DataError, match=r"leave the split 'train' empty .* or lower held_out"):
        assign(sessions, "session", 0, held_out=9_000)
    with pytest.raises(DataError, match=r"leave the split '\w+' empty .* Give more data\.$"):
        assign(sessions.head(2), "session", 0, held_out=1)


def test_session_split_is_the_seed_s():
    assert by_session(500, 40, seed=1) == by_session(500, 40, seed=1)
    assert by_session(500, 40, seed=1) != by_session(500, 40, seed=2)


@given(st.lists(st.integers(1, 6), max_size=20))
def test_leave_last_out_holds_out_each_user_s_last_two(num_sessions):
    users = [f"u{user}" for user, n in enumerate(num_sessions) for _ in range(n)]
    splits = leave_last_out(users)
    for user, n in enumerate(num_sessions):
        own = [split for name, split in zip(users, splits, strict=True) if name == f"u{user}"]
        assert own == (["train"] * (n - 2) + ["validation", "test"])[-n:]


times = st.lists(st.integers(0, 50), min_size=3, max_size=200).map(lambda times: pl.Series(times, dtype=pl.Float64))


@given(times)
def test_temporal_trains_on_nothing_later_than_what_it_holds_out(times):
    num_held_out = max(1, round(0.08 * len(times)))
    splits = np.array(temporal(times, num_held_out))
    train, validation, test = (times.to_numpy()[splits == name] for name in ("train", "validation", "test"))
    assert len(validation) == len(test) == num_held_out
    assert train.max(initial=-1) <= validation.min() <= validation.max() <= test.min()


def test_temporal_needs_times():
    with pytest.raises(DataError, match=r'"temporal" needs the time of every target, but 1 of 3 have none'):
        temporal(pl.Series([1.0, None, 2.0]), 1)


@given(times, st.integers(0, 9))
def test_reference_trains_on_those_who_came_first_and_draws_the_others(times, seed):
    num_held_out = max(1, round(0.08 * len(times)))
    splits = np.array(reference(times, num_held_out, seed))
    assert (Counter(splits)["validation"], Counter(splits)["test"]) == (num_held_out, num_held_out)
    came = times.to_numpy()
    assert came[splits == "train"].max(initial=-1) <= came[splits != "train"].min()
    assert splits.tolist() == reference(times, num_held_out, seed)


@pytest.mark.parametrize(
    ("split", "users"), [("session", "ab"), ("leave-last-out", "abcd"), ("leave-last-out", "aabb")]
)
def test_an_empty_split_is_refused(split, users):
    sessions = pl.DataFrame({"user_id": list(users)})
    with pytest.raises(
        DataError, match=rf"{len(users)} sessions of {len(set(users))} users leave the split 'train' empty"
    ):
        assign(sessions, split, seed=0)


def test_leave_last_out_says_why_few_sessions_train(capsys):
    assign(pl.DataFrame({"user_id": list("abcddeee")}), "leave-last-out", seed=0)
    assert 'Only 1 of 8 sessions train with split = "leave-last-out": of 5 users 3 have one' in capsys.readouterr().err
    assign(pl.DataFrame({"user_id": list("aaaa")}), "leave-last-out", seed=0)
    assert capsys.readouterr().err == ""
