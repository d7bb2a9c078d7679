"""The leakage report counts what a loop over all pairs of sessions counts."""

from statistics import median

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from langptune_rs.data.preparing import leakage
from langptune_rs.data.store.sessions import SPLITS

SESSIONS = [
    # user, history, target, time of the target, split
    ("a", ["1", "2"], "3", 22.0, "train"),
    ("a", ["4", "5"], "2", 20.0, "test"),
    ("a", ["4", "6"], "3", 30.0, "test"),
    ("b", ["1", "2"], "9", 25.0, "test"),
    ("b", ["5", "6"], "7", 40.0, "train"),
    ("b", ["5", "6"], "3", 5.0, "validation"),
]


def leaks(rows, num_items):
    schema = {"user_id": pl.String, "history": pl.List(pl.String), "target": pl.String, "target_timestamp": pl.Float64}
    return leakage.report(pl.DataFrame(rows, schema=schema | {"split": pl.String}, orient="row"), num_items)


def test_leakage_is_counted():
    assert leaks(SESSIONS, num_items=9) == {
        "train_sessions": 2,
        "validation_sessions": 1,
        "test_sessions": 3,
        "validation_users": 1,
        "validation_users_in_train": 1,
        "validation_targets_in_train_histories_of_same_user": 0,
        "validation_targets_as_train_targets_of_same_user": 0,
        "validation_targets_in_train_histories_of_any_user": 0,
        "validation_targets_never_in_train": 0,
        "test_users": 2,
        "test_users_in_train": 2,
        "test_targets_in_train_histories_of_same_user": 1,
        "test_targets_as_train_targets_of_same_user": 1,
        "test_targets_in_train_histories_of_any_user": 1,
        "test_targets_never_in_train": 1,
        "items_never_in_train": 3,
        "validation_sessions_sharing_items_with_train_of_same_user": 1,
        "validation_windows_overlapping_train": 0,
        "test_sessions_sharing_items_with_train_of_same_user": 2,
        "test_windows_overlapping_train": 0,
        "test_sessions_sharing_items_with_validation_of_same_user": 0,
        "test_windows_overlapping_validation": 0,
        "train_targets_after_first_validation_target": 2,
        "train_targets_after_median_validation_target": 2,
        "train_targets_after_first_test_target": 2,
        "train_targets_after_median_test_target": 1,
    }


def test_windows_that_overlap_are_found_and_repeats_are_not_taken_for_these():
    rows = [
        ("a", ["1", "2", "3"], "4", None, "train"),
        ("a", ["3", "4", "5"], "6", None, "test"),
        ("a", ["9", "0", "1"], "2", None, "validation"),
        ("a", ["4", "7", "8"], "1", None, "test"),
        ("b", ["3", "4", "5"], "6", None, "test"),
    ]
    report = leaks(rows, num_items=10)
    assert report["test_windows_overlapping_train"] == 1
    assert report["validation_windows_overlapping_train"] == 1
    assert report["test_windows_overlapping_validation"] == 0
    assert report["test_sessions_sharing_items_with_train_of_same_user"] == 2
    assert report["test_sessions_sharing_items_with_validation_of_same_user"] == 1


def test_without_times_no_overlap_is_claimed():
    rows = [(user, history, target, None, split) for user, history, target, _, split in SESSIONS]
    assert not [key for key in leaks(rows, num_items=9) if "_after_" in key]


windows = st.permutations("12345678").map(lambda items: items[:4])
sessions = st.tuples(st.sampled_from("ab"), windows, st.none() | st.integers(0, 9).map(float), st.sampled_from(SPLITS))


@given(st.lists(sessions, max_size=12))
def test_leakage_is_what_a_loop_counts(rows):
    report = leaks([(user, window[:-1], window[-1], time, split) for user, window, time, split in rows], num_items=8)
    train, validation, test = ([row for row in rows if row[3] == split] for split in SPLITS)
    in_train = {item for _, window, _, _ in train for item in window}
    assert report["items_never_in_train"] == 8 - len(in_train)
    for name, held_out in (("validation", validation), ("test", test)):
        own = [(user, window, [other for who, other, _, _ in train if who == user]) for user, window, _, _ in held_out]
        expected = {
            "sessions": len(held_out),
            "users": len({row[0] for row in held_out}),
            "users_in_train": len({row[0] for row in held_out} & {row[0] for row in train}),
            "targets_in_train_histories_of_same_user": sum(any(w[-1] in o[:-1] for o in them) for _, w, them in own),
            "targets_as_train_targets_of_same_user": sum(any(w[-1] == o[-1] for o in theirs) for _, w, theirs in own),
            "targets_in_train_histories_of_any_user": sum(
                any(row[1][-1] in other[1][:-1] for other in train) for row in held_out
            ),
            "targets_never_in_train": sum(row[1][-1] not in in_train for row in held_out),
            "sessions_sharing_items_with_train_of_same_user": sum(any({*w} & {*o} for o in them) for _, w, them in own),
            "windows_overlapping_train": sum(any(overlap(w, o) for o in theirs) for _, w, theirs in own),
        }
        assert {key: report[f"{name}_{key}"] for key in expected} == expected
        times = [row[2] for row in held_out if row[2] is not None]
        train_times = [row[2] for row in train if row[2] is not None]
        for which, limit in (("first", min), ("median", median)):
            key = f"train_targets_after_{which}_{name}_target"
            assert report.get(key) == (
                sum(time > limit(times) for time in train_times) if times and train_times else None
            )
    shared = [(row, other) for row in test for other in validation if row[0] == other[0]]
    assert report["test_sessions_sharing_items_with_validation_of_same_user"] == len(
        {id(row) for row, other in shared if {*row[1]} & {*other[1]}}
    )
    assert report["test_windows_overlapping_validation"] == len(
        {id(row) for row, other in shared if overlap(row[1], other[1])}
    )


def overlap(one, other):
    """Whether two items or more at the end of one window are the first of the other."""
    return any(one[-n:] == other[:n] or other[-n:] == one[:n] for n in range(2, len(one) + 1))
