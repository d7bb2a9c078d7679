"""Several targets of a train session: its own, and the items that its user chose next.

One target is much luck. Items in a row say more about whether a profile fits its user.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from langptune_rs.data.store.sessions import Sessions


def later_targets(sessions: Sessions, chosen: Sessions, num_targets: int) -> list[NDArray[np.int64]]:
    """The targets of each of n `chosen` train sessions: int64 (1 to `num_targets`,), its own first, all distinct.

    The others are the items of later train sessions of the same user, histories and targets, oldest first. `sessions`
    are all of the data set. Of held-out sessions nothing but the targets is looked at, and these to be left out alone:
    what is a target of the same user in validation or test, which the user may have chosen before, too. Left out is
    also what the session has in its history.
    """
    users, is_train = sessions.user_ids.codes(), sessions.splits.mask("train")
    by_user = np.flatnonzero(is_train)[np.argsort(users[is_train], kind="stable")]
    windows = np.column_stack([sessions.histories, sessions.targets])[by_user].astype(np.int64)
    num_items = 1 + max(int(windows.max()), int(sessions.targets.max()))
    held_out = (users * num_items + sessions.targets)[~is_train]
    may_be_seen = ~np.isin(users[by_user, None] * num_items + windows, held_out)

    items = windows[may_be_seen]
    next_item = np.cumsum(may_be_seen.sum(1))  # behind the items of each session
    end_of_user = next_item[np.searchsorted(users[by_user], users[by_user], side="right") - 1]
    rows = _places(sessions.session_ids[by_user], chosen.session_ids)
    return _first_new(windows[rows], items, next_item[rows], end_of_user[rows], num_targets)


def _places(ids: NDArray[np.int64], wanted: NDArray[np.int64]) -> NDArray[np.int64]:
    """The place in `ids` of each of `wanted`, int64 (n,)."""
    order = np.argsort(ids)
    return order[np.searchsorted(ids, wanted, sorter=order)]


def _first_new(
    windows: NDArray[np.int64],
    items: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    num_targets: int,
) -> list[NDArray[np.int64]]:
    """The last item of each window (n, H + 1), and the first of `items[start:end]` that are neither there nor taken."""
    num_targets = min(num_targets, 1 + int((ends - starts).max(initial=0)))  # what is asked for may be any number
    targets = np.full((len(windows), num_targets), -1)
    targets[:, 0] = windows[:, -1]
    count, place = np.ones_like(starts), starts.copy()
    rows = np.arange(len(windows))
    while (rows := rows[(place[rows] < ends[rows]) & (count[rows] < num_targets)]).size:
        candidates = items[place[rows]]
        place[rows] += 1
        seen = np.column_stack([windows[rows], targets[rows]])
        is_new = (seen != candidates[:, None]).all(axis=1)
        taking = rows[is_new]
        targets[taking, count[taking]] = candidates[is_new]
        count[taking] += 1
    return [own[:n] for own, n in zip(targets, count, strict=True)]
