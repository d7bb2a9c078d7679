"""What the methods that learn from item ids are trained on: train sessions, and the histories of the others.

No target of validation or test is among it (footnote 2 of the paper).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from langptune_rs.data import Dataset


def item_sequences(dataset: Dataset) -> list[NDArray[np.int32]]:
    """The items of each session, oldest first, in the order of the sessions. A train session ends with its target."""
    sessions = dataset.sessions
    is_train = sessions.splits.mask("train")
    return [
        np.append(history, target) if train else np.asarray(history)
        for history, target, train in zip(sessions.histories, sessions.targets, is_train, strict=True)
    ]


def user_items(dataset: Dataset) -> csr_array:
    """1 where a user chose an item, float32 (n_users, n_items); users in the order in which the sessions name them."""
    sequences = item_sequences(dataset)
    numbers: dict[str, int] = {}
    users = [numbers.setdefault(user, len(numbers)) for user in dataset.sessions.user_ids.to_list()]
    rows = np.repeat(users, [len(items) for items in sequences])
    chosen = csr_array(
        (np.ones(len(rows), dtype=np.float32), (rows, np.concatenate(sequences))),
        shape=(len(numbers), len(dataset.catalog)),
    )
    chosen.sum_duplicates()
    chosen.data[:] = 1.0
    return chosen


def histories_as_rows(histories: NDArray[np.int32], num_items: int) -> csr_array:
    """1 for each item of a history, float32 (N, num_items)."""
    num_sessions, length = histories.shape
    rows = csr_array(
        (
            np.ones(histories.size, dtype=np.float32),
            histories.ravel().astype(np.int64),
            np.arange(num_sessions + 1) * length,
        ),
        shape=(num_sessions, num_items),
    )
    rows.sum_duplicates()
    rows.data[:] = 1.0
    return rows
