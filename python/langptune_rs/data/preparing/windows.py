"""Cutting a user's interactions into sessions of distinct items."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np


def last_window(items: Sequence[Hashable], size: int) -> list[list[int]]:
    """Places of the newest `size` distinct items, oldest first; no window if there are fewer.

    Of an item that occurs again only the newest occurrence counts.
    """
    newest: dict[Hashable, int] = {}
    for place in range(len(items) - 1, -1, -1):
        newest.setdefault(items[place], place)
        if len(newest) == size:
            return [sorted(newest.values())]
    return []


def all_windows(items: Sequence[Hashable], size: int) -> list[list[int]]:
    """Places of every window of `size` distinct items, one after the other from the oldest.

    A repeat within a window is passed over and a later item taken; what is left at the end makes no window.
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
    """Places of the oldest `size` items, if the last of them is none of the others; these may repeat.

    What the published reference code takes.
    """
    return [list(range(size))] if len(items) >= size and items[size - 1] not in items[: size - 1] else []


WINDOWS: dict[str, Callable[[Sequence[Hashable], int], list[list[int]]]] = {
    "last": last_window,
    "all": all_windows,
    "first": first_window,
}


def cut_sessions(users: np.ndarray, items: np.ndarray, rule: str, history_length: int) -> np.ndarray:
    """The interactions of each session, int64 (n, history_length + 1): places in `users` and `items`, oldest first.

    Interactions are sorted by user and time; sessions stand in the order of the users, then of time.
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
