"""Profiles whose log-probability is not finite, named once each."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from langptune_rs.distributed.collectives import gather_objects, rank

MOST_NAMED = 5


class UnusableProfiles:
    """Those of one rollout batch, of which this rank holds the sessions with these ids."""

    def __init__(self, session_ids: NDArray[np.int64]):
        self._session_ids = session_ids
        self._named: set[tuple[int, int]] = set()
        self._count = 0.0

    def name(self, logps_BG: Tensor, count: float) -> None:
        """Print which of `logps_BG` (sessions, profiles) are NaN for the first time; there are `count` on all ranks.

        Every rank calls this, and rank 0 prints.
        """
        if count == self._count:
            return
        self._count = count
        places = {(int(b), int(g)) for b, g in logps_BG.isnan().nonzero().tolist()}
        own = [(int(self._session_ids[b]), g + 1) for b, g in sorted(places - self._named)]
        self._named = places
        found = [name for names in gather_objects(own) for name in names]
        if rank() == 0:
            names = ", ".join(f"profile {g} of session {session}" for session, g in found[:MOST_NAMED])
            more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
            print(f"Left out of the loss, as their log-probability is not finite: {names}{more}.", file=sys.stderr)
