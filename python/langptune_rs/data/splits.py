"""Dividing sessions into train, validation and test."""

from __future__ import annotations

import numpy as np
import polars as pl

from langptune_rs.errors import DataError

HELD_OUT_SHARE = 0.08
"""Of the sessions, for validation and for test each (section 4.1: 84/8/8)."""


def assign(sessions: pl.DataFrame, split: str, seed: int) -> pl.DataFrame:
    """`sessions` with the column `split`. Raises `DataError` when one of the three would be empty."""
    splits = by_session(len(sessions), seed) if split == "session" else leave_last_out(sessions["user_id"].to_list())
    empty = [name for name in ("train", "validation", "test") if name not in splits]
    if empty:
        raise DataError(
            f"{len(sessions)} sessions of {sessions['user_id'].n_unique()} users leave the split {empty[0]!r} empty "
            f'with split = "{split}". Give more data'
            + (', or use split = "session".' if split == "leave-last-out" else ".")
        )
    return sessions.with_columns(pl.Series("split", splits, dtype=pl.String))


def by_session(num_sessions: int, seed: int) -> list[str]:
    """84/8/8 of all sessions, drawn with `seed`; at least one each for validation and test."""
    num_held_out = max(1, round(HELD_OUT_SHARE * num_sessions))
    drawn = np.random.default_rng(seed).permutation(num_sessions)
    splits = np.full(num_sessions, "train", dtype=object)
    splits[drawn[:num_held_out]] = "test"
    splits[drawn[num_held_out : 2 * num_held_out]] = "validation"
    return splits.tolist()


def leave_last_out(user_ids: list[str]) -> list[str]:
    """Each user's last session is test, the one before it validation, all others train.

    `user_ids` names the user of each session, those of one user in order of time. The only session of a user is test.
    """
    splits = []
    num_later: dict[str, int] = {}
    for user in reversed(user_ids):
        later = num_later.get(user, 0)
        splits.append(("test", "validation")[later] if later < 2 else "train")
        num_later[user] = later + 1
    return splits[::-1]
