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
from langptune_rs.errors import ConfigError


def reward_targets(config: RunConfig, dataset: Dataset, sessions: Sessions) -> list[NDArray[np.int64]] | None:
    """The targets of each train session of `sessions`, its own first; None where a session has one, its own.

    Rank 0 says on stderr how many have fewer than `data.num_targets`. Raises `ConfigError` when none has a second one.
    """
    wanted = config.data.num_targets
    if wanted == 1 or not config.trains_policy:
        return None
    targets = later_targets(dataset.sessions, sessions, wanted)
    check_targets(targets, wanted)
    return targets


def check_targets(targets: Sequence[NDArray[np.int64]], wanted: int) -> None:
    """Say how many sessions have fewer than `wanted` targets, once. Raises `ConfigError` when all have one."""
    counts = np.array([len(own) for own in targets])
    if counts.max() == 1:
        raise ConfigError(
            f"data.num_targets = {wanted}, but no user of the {len(counts):,} training sessions chose anything new in "
            'a later train session. Prepare the data with windows = "all", which gives users several sessions, or set '
            "data.num_targets = 1."
        )
    if (num_fewer := int((counts < wanted).sum())) and rank() == 0:
        print(
            f"data.num_targets = {wanted}: {num_fewer:,} of {len(counts):,} training sessions have fewer targets, "
            f"since their users chose no more in later train sessions. A session has {counts.mean():.1f} on average.",
            file=sys.stderr,
        )
