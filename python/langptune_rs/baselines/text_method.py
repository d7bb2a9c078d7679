"""Methods that describe a session by text, which an embedder compares with the items."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from langptune_rs.baselines.method import Method
from langptune_rs.data import Sessions
from langptune_rs.recommending.recommender import Recommender


class TextMethod(Method):
    """Ranks by the similarity of each item's text to a text about the session, once for each such text."""

    reads_with_trained: ClassVar[bool] = False
    """Whether the embedder has been trained."""

    @property
    @abstractmethod
    def recommender(self) -> Recommender:
        """The embedder and the items."""

    @abstractmethod
    def texts(self, sessions: Sessions) -> list[str]:
        """The texts about the sessions, session-major, equally many for each session."""

    def ranks(self, sessions: Sessions) -> NDArray[np.int64]:
        """See `Method.ranks`; one rank for each text of a session."""
        texts = self.texts(sessions)
        num_texts = len(texts) // max(1, len(sessions))
        targets, histories = (np.repeat(x, num_texts, axis=0) for x in (sessions.targets, sessions.histories))
        return self.recommender.ranks(texts, targets, histories).reshape(len(sessions), -1)
