"""Small data sets for the methods that learn from item ids."""

import numpy as np

from langptune_rs.data import Catalog, Dataset, Sessions
from langptune_rs.data.wording.templates import make_template

HISTORY = 4


def dataset_of(rows: np.ndarray, users: list[str], splits: list[str], num_items: int) -> Dataset:
    """Sessions whose items are the rows, the target last."""
    num_sessions = len(rows)
    sessions = Sessions(
        session_ids=np.arange(num_sessions, dtype=np.int64),
        user_ids=users,
        histories=rows[:, :-1].astype(np.int32),
        ratings=np.full((num_sessions, rows.shape[1] - 1), np.nan, dtype=np.float32),
        reviews=[[None] * (rows.shape[1] - 1) for _ in range(num_sessions)],
        targets=rows[:, -1].astype(np.int32),
        splits=splits,
    )
    titles = [f"Item {i}" for i in range(num_items)]
    catalog = Catalog([f"i{i}" for i in range(num_items)], titles, titles, titles)
    return Dataset(catalog, sessions, make_template("generic", has_ratings=False, has_reviews=False), {})


def tastes(num_sessions: int, *, num_tastes: int = 8, per_taste: int = 12, shuffle_targets: bool = False) -> Dataset:
    """Sessions of one user each, whose items are all of one taste; a third each is train, validation and test.

    With shuffled targets every target is any item outside the history, so that nothing can be learned about it.
    """
    rng = np.random.default_rng(0)
    num_items = num_tastes * per_taste
    taste_of = rng.permutation(num_items).reshape(num_tastes, per_taste)
    rows = np.stack(
        [rng.choice(taste_of[rng.integers(num_tastes)], HISTORY + 1, replace=False) for _ in range(num_sessions)]
    )
    if shuffle_targets:
        for row in rows:
            row[-1] = rng.choice(np.setdiff1d(np.arange(num_items), row[:-1]))
    splits = [("train", "validation", "test")[i % 3] for i in range(num_sessions)]
    return dataset_of(rows, [f"u{i}" for i in range(num_sessions)], splits, num_items)


def by_heart(num_sessions: int = 50, num_items: int = 200) -> Dataset:
    """Train sessions of random items. Each of them is a validation session of another user too, so that the best
    weights are those that know them."""
    rng = np.random.default_rng(1)
    rows = np.stack([rng.choice(num_items, HISTORY + 1, replace=False) for _ in range(num_sessions)])
    users = [f"{kind}{i}" for kind in ("train", "again") for i in range(num_sessions)]
    splits = ["train"] * num_sessions + ["validation"] * num_sessions
    return dataset_of(np.concatenate([rows, rows]), users, splits, num_items)
