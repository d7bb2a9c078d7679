"""The targets that the reward of a train session averages over."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.data.store.later_targets import later_targets
from langptune_rs.distributed.collectives import rank


def reward_targets(config: RunConfig, dataset: Dataset, sessions: Sessions) -> list[NDArray[np.int64]] | None:
    """The targets of each train session of `sessions`, its own first; None where a session has one, its own.

    Rank 0 says on stderr how many have fewer than `data.num_targets`.
    """
    wanted = config.data.num_targets
    if wanted == 1 or not config.trains_policy:
        return None
    targets = later_targets(dataset.sessions, sessions, wanted)
    tell_of_fewer(targets, wanted)
    return targets


def tell_of_fewer(targets: Sequence[NDArray[np.int64]], wanted: int) -> None:
    """Rank 0 says how many sessions have fewer than `wanted` targets, if any has, and what gives them more."""
    counts = np.array([len(own) for own in targets])
    num_fewer = int((counts < wanted).sum())
    if not num_fewer or rank() > 0:
        return
    message = (
        f"data.num_targets = {wanted}: {num_fewer:,} of {len(counts):,} training sessions have fewer targets, "
        "since their users chose nothing new in more later train sessions. "
        f"A session has {counts.mean():.1f} on average."
    )
    if counts.max() == 1:
        message += ' Only data prepared with windows = "all" has several sessions of a user.'
    print(message, file=sys.stderr)
