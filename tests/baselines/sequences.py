"""Small data sets for the methods that learn from item ids."""

from collections.abc import Sequence

import numpy as np

from langptune_rs.data import Catalog, Dataset, Sessions
from langptune_rs.data.wording.templates import make_template

HISTORY = 4


def dataset_of(rows: np.ndarray, splits: Sequence[str], num_items: int) -> Dataset:
    """Sessions of the items in `rows`, the last of each its target, over items whose text is their number."""
    num_sessions = len(rows)
    sessions = Sessions(
        session_ids=np.arange(num_sessions, dtype=np.int64),
        user_ids=[f"u{i}" for i in range(num_sessions)],
        histories=rows[:, :-1].astype(np.int32),
        ratings=np.full((num_sessions, rows.shape[1] - 1), np.nan, dtype=np.float32),
        reviews=[[None] * (rows.shape[1] - 1)] * num_sessions,
        targets=rows[:, -1].astype(np.int32),
        splits=splits,
    )
    names = [str(i) for i in range(num_items)]
    return Dataset(
        Catalog(names, names, names, names),
        sessions,
        make_template("generic", has_ratings=False, has_reviews=False),
        {},
    )


def split_of(num_train: int, num_validation: int, num_test: int) -> list[str]:
    """So many sessions of each split, one after the other."""
    return ["train"] * num_train + ["validation"] * num_validation + ["test"] * num_test


def circles(num_items: int = 30, steps: Sequence[int] = (1,), seed: int = 0) -> Dataset:
    """200 sessions that go round all items, each by one of the `steps`."""
    draws = np.random.default_rng(seed)
    starts, step = draws.integers(num_items, size=200), draws.choice(steps, size=200)
    rows = (starts[:, None] + step[:, None] * np.arange(HISTORY + 1)) % num_items
    return dataset_of(rows, split_of(140, 30, 30), num_items)


def random_rows(num_sessions: int, num_items: int, seed: int) -> np.ndarray:
    """Sessions of items drawn uniformly, none twice in a session."""
    draws = np.random.default_rng(seed)
    return np.stack([draws.choice(num_items, HISTORY + 1, replace=False) for _ in range(num_sessions)])
