"""Cutting a user's interactions into sessions of distinct items."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np


def last_window(items: Sequence[Hashable], size: int) -> list[list[int]]:
    """Places of the newest `size` distinct items, oldest first. There is no window if there are fewer items.

    Only the newest occurrence of an item counts.
    """
    newest: dict[Hashable, int] = {}
    for place in range(len(items) - 1, -1, -1):
        newest.setdefault(items[place], place)
        if len(newest) == size:
            return [sorted(newest.values())]
    return []


def all_windows(items: Sequence[Hashable], size: int) -> list[list[int]]:
    """Places of consecutive windows of `size` distinct items, from the oldest item on.

    An item that repeats within a window is skipped. Items left at the end that do not fill a window are dropped.
    """
    windows: list[list[int]] = []
    window: dict[Hashable, int] = {}
    for place, item in enumerate(items):
        window.setdefault(item, place)
        if len(window) == size:
            windows.append(list(window.values()))
            window = {}
    return windows


def first_window(items: Sequence[Hashable], size: int) -> list[list[int]]:
    """Places of the oldest `size` items, as the published reference code takes them.

    There is no window if the last of these items is also one of the others. The others may repeat.
    """
    return [list(range(size))] if len(items) >= size and items[size - 1] not in items[: size - 1] else []


WINDOWS: dict[str, Callable[[Sequence[Hashable], int], list[list[int]]]] = {
    "last": last_window,
    "all": all_windows,
    "first": first_window,
}


def cut_sessions(users: np.ndarray, items: np.ndarray, rule: str, history_length: int) -> np.ndarray:
    """The interactions of each session, int64 (n, history_length + 1): places in `users` and `items`, oldest first.

    Interactions are sorted by user and time, and sessions have the same order. `rule` is a key of `WINDOWS`.
    """
    size = history_length + 1
    starts = np.flatnonzero(np.diff(users, prepend=-1)) if len(users) else np.empty(0, np.int64)
    ends = np.append(starts[1:], len(users))
    long_enough = ends - starts >= size
    ids, rows = items.tolist(), []
    for start, end in zip(starts[long_enough].tolist(), ends[long_enough].tolist(), strict=True):
        for window in WINDOWS[rule](ids[start:end], size):
            rows += [start + place for place in window]
    return np.array(rows, dtype=np.int64).reshape(-1, size)
