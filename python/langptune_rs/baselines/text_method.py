"""Methods that describe a session by text, which an embedder compares with the items."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
from numpy.typing import NDArray

from langptune_rs.baselines.method import Method
from langptune_rs.data import Sessions
from langptune_rs.recommending.recommender import Recommender


class TextMethod(Method):
    """Ranks by the similarity of each item's text to a text about the session, once for each such text."""

    @property
    @abstractmethod
    def recommender(self) -> Recommender:
        """The embedder and the items."""

    @abstractmethod
    def texts(self, sessions: Sessions) -> list[str]:
        """The texts about the sessions, session-major, equally many for each session."""

    def ranks(self, sessions: Sessions) -> NDArray[np.int64]:
        """See `Method.ranks`; one rank for each text of a session."""
        return self.recommender.ranks(self.texts(sessions), sessions.targets, sessions.histories)
