"""Dividing sessions into train, validation and test."""

from __future__ import annotations

import sys

import numpy as np
import polars as pl

from langptune_rs.errors import DataError
from langptune_rs.seeds import generator

HELD_OUT_SHARE = 0.08
"""The share of validation, and that of test (section 4.1: 84/8/8)."""


def assign(sessions: pl.DataFrame, split: str, seed: int, held_out: int | None = None) -> pl.DataFrame:
    """`sessions` with the column `split`. `held_out` sessions are validation and as many are test, or else 8% each.

    Raises `DataError` when one of the three would be empty, and where a split by time lacks times.
    """
    num_held_out = min(held_out or max(1, round(HELD_OUT_SHARE * len(sessions))), len(sessions))
    match split:
        case "session":
            splits = by_session(len(sessions), num_held_out, seed)
        case "leave-last-out":
            splits = leave_last_out(sessions["user_id"].to_list())
            _warn_of_few(sessions["user_id"], splits)
        case "temporal":
            splits = temporal(sessions["target_timestamp"], num_held_out)
        case "reference":
            splits = reference(sessions["first_timestamp"], num_held_out, seed)
    empty = [name for name in ("train", "validation", "test") if name not in splits]
    if empty:
        advice = "."
        if split == "leave-last-out":
            advice = ', or use split = "session".'
        elif held_out and len(sessions) > 2:
            advice = ", or lower held_out."
        raise DataError(
            f"{len(sessions)} sessions of {sessions['user_id'].n_unique()} users leave the split {empty[0]!r} empty "
            f'with split = "{split}". Give more data{advice}'
        )
    return sessions.with_columns(pl.Series("split", splits, dtype=pl.String))


def by_session(num_sessions: int, num_held_out: int, seed: int) -> list[str]:
    """`num_held_out` sessions are test and as many are validation, drawn with `seed`. All others are train."""
    drawn = generator(seed).permutation(num_sessions)
    splits = np.full(num_sessions, "train", dtype=object)
    splits[drawn[:num_held_out]] = "test"
    splits[drawn[num_held_out : 2 * num_held_out]] = "validation"
    return splits.tolist()


def leave_last_out(user_ids: list[str]) -> list[str]:
    """Each user's last session is test, the one before it is validation, and all others are train.

    `user_ids` has the user of each session. The sessions of one user are in order of time, and an only session is test.
    """
    splits = []
    num_later: dict[str, int] = {}
    for user in reversed(user_ids):
        later = num_later.get(user, 0)
        splits.append(("test", "validation")[later] if later < 2 else "train")
        num_later[user] = later + 1
    return splits[::-1]


def _warn_of_few(user_ids: pl.Series, splits: list[str]) -> None:
    """Where there are fewer train sessions than test sessions, say why on stderr."""
    num_train, num_users = splits.count("train"), splits.count("test")
    if 0 < num_train < num_users:
        of_user = user_ids.value_counts(sort=False)["count"]
        print(
            f'Only {num_train} of {len(splits)} sessions train with split = "leave-last-out": of {num_users} users '
            f"{(of_user == 1).sum()} have one session, which is test, and {(of_user == 2).sum()} have two, which are "
            'validation and test. A lower history_length gives more sessions; split = "session" trains on 84% of them.',
            file=sys.stderr,
        )


def temporal(target_timestamps: pl.Series, num_held_out: int) -> list[str]:
    """The sessions with the newest `num_held_out` targets are test, as many before them are validation, others train.

    No train target is later than a held-out target. Where targets have the same time, the later session is held out
    first. Raises `DataError` where a target has no time.
    """
    missing = target_timestamps.null_count()
    if missing:
        raise DataError(
            f'split = "temporal" needs the time of every target, but {missing} of {len(target_timestamps)} have none. '
            'Use split = "session" or "leave-last-out".'
        )
    oldest_first = np.argsort(target_timestamps.to_numpy(), kind="stable")
    splits = np.full(len(target_timestamps), "train", dtype=object)
    splits[oldest_first[-2 * num_held_out :]] = "validation"
    splits[oldest_first[-num_held_out:]] = "test"
    return splits.tolist()


def reference(first_timestamps: pl.Series, num_held_out: int, seed: int) -> list[str]:
    """The split of the published reference code: the sessions that begin last are held out, half of them for test.

    `first_timestamps` is the time of the first interaction of each session. A session without one counts as the oldest.
    A session that begins early may end late, so that train targets can be later than test targets.
    """
    first_come = np.argsort(first_timestamps.fill_null(float("-inf")).to_numpy(), kind="stable")
    drawn = generator(seed).permutation(first_come[-2 * num_held_out :])
    splits = np.full(len(first_timestamps), "train", dtype=object)
    splits[drawn[:num_held_out]] = "validation"
    splits[drawn[num_held_out:]] = "test"
    return splits.tolist()
