"""From interactions to sessions: k-core, windows of distinct items in order of time, splits."""

from __future__ import annotations

import numpy as np
import polars as pl

from langptune_rs.errors import DataError

TRAIN_SHARE, VALIDATION_SHARE = 0.84, 0.08
"""Section 4.1; the rest is test."""


def k_core(interactions: pl.DataFrame, k: int) -> tuple[pl.DataFrame, list[dict[str, int | str]]]:
    """Remove users and items with fewer than k interactions until none is left, and what each round removed.

    Raises `DataError` that says at which round nothing was left.
    """
    rounds: list[dict[str, int | str]] = []
    while True:
        before = len(interactions)
        for column in ("user_id", "item_id"):
            interactions = interactions.filter(pl.len().over(column) >= k)
        if len(interactions) == before:
            return interactions, rounds
        rounds.append({"step": f"{k}-core, round {len(rounds) + 1}", "removed": before - len(interactions)})
        if interactions.is_empty():
            raise DataError(
                f"No interaction is left after round {len(rounds)} of the {k}-core: no group of users and items has "
                f"{k} interactions each. Lower data.min_interactions, or bring more data."
            )


def in_order(interactions: pl.DataFrame) -> pl.DataFrame:
    """Interactions of each user from the oldest to the newest: by timestamp, then position, then order in the file.

    Where an item comes twice only its first interaction counts, so that the items of a user are distinct.
    """
    return (
        interactions.with_row_index("order")
        .sort("user_id", "timestamp", "position", "order", nulls_last=True)
        .unique(["user_id", "item_id"], keep="first", maintain_order=True)
        .drop("order")
    )


def cut_windows(interactions: pl.DataFrame, history_length: int, windows: str) -> pl.DataFrame:
    """One row a session, from ordered interactions: user, `window` (0 is the user's newest), and lists of `length` + 1
    items, ratings, reviews and timestamps, oldest first.

    Windows are laid from the newest interaction backwards and do not overlap; what is left over at the old end, and
    users with fewer interactions than one window, give no session.
    """
    size = history_length + 1
    from_newest = pl.len().over("user_id") - 1 - pl.int_range(pl.len()).over("user_id")
    rows = interactions.with_columns(window=from_newest // size)
    if windows == "last":
        rows = rows.filter(pl.col("window") == 0)
    return (
        rows.group_by("user_id", "window", maintain_order=True)
        .agg("item_id", "rating", "review_text", "timestamp")
        .filter(pl.col("item_id").list.len() == size)
    )


def split_sessions(windows: np.ndarray, split: str, seed: int) -> list[str]:
    """The split of each session. `windows` is the place of a session counted from its user's newest, int64 (n,).

    `session`: 84/8/8 of all sessions in a seeded random order (section 4.1). `leave-last-out`: the newest session of
    every user is test, the one before validation, the others train.

    Raises `DataError` when a split would be empty.
    """
    n = len(windows)
    if split == "leave-last-out":
        splits = np.select([windows == 0, windows == 1], ["test", "validation"], "train")
    else:
        order = np.random.default_rng(seed).permutation(n)
        num_train, num_validation = round(n * TRAIN_SHARE), round(n * VALIDATION_SHARE)
        splits = np.full(n, "test", dtype=object)
        splits[order[:num_train]] = "train"
        splits[order[num_train : num_train + num_validation]] = "validation"
    missing = {"train", "validation", "test"} - set(splits.tolist())
    if missing:
        more = ' With "leave-last-out" a user needs three sessions: set data.windows = "all".' * (split != "session")
        raise DataError(f"{n} sessions are too few for the split {split!r}: {', '.join(sorted(missing))} is empty.{more}")
    return splits.tolist()


def leakage(
    user_ids: list[str], items: np.ndarray, times: np.ndarray | None, splits: list[str]
) -> dict[str, float | int]:
    """How much training knows of the test sessions.

    `items` is (n, H + 1), histories and targets; `times` likewise in seconds, or None without times.

    Returns the shares of test sessions whose user has a training session, whose target that user already has there,
    whose target no training session holds (cold), and, with times, whose target was chosen before the newest training
    interaction.
    """
    train = np.array([s == "train" for s in splits])
    test = np.array([s == "test" for s in splits])
    users = np.array(user_ids, dtype=object)
    train_pairs = {(user, item) for user, row in zip(users[train], items[train].tolist(), strict=True) for item in row}
    train_users = set(users[train])
    test_targets = items[test, -1].tolist()
    report: dict[str, float | int] = {
        "test_sessions": int(test.sum()),
        "test_users_in_train": float(np.mean([user in train_users for user in users[test]])),
        "test_targets_seen_by_user_in_train": float(
            np.mean([pair in train_pairs for pair in zip(users[test], test_targets, strict=True)])
        ),
        "test_targets_cold": float(1 - np.isin(items[test, -1], np.unique(items[train])).mean()),
    }
    if times is not None:
        report["test_targets_before_newest_training_interaction"] = float((times[test, -1] < times[train].max()).mean())
    return report
