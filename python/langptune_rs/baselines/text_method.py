"""Methods that describe a session by texts, which an embedder compares with the items."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from langptune_rs.baselines.method import Method
from langptune_rs.data import Sessions
from langptune_rs.recommending.recommender import Recommender


class TextMethod(Method):
    """Ranks by the similarity of each item's text to a text about the session, or to each of several."""

    reads_with_trained: ClassVar[bool] = False
    """Whether the embedder is a trained one."""

    @property
    @abstractmethod
    def recommender(self) -> Recommender:
        """The embedder and the items."""

    @abstractmethod
    def texts(self, sessions: Sessions) -> list[str]:
        """The texts about the sessions, equally many for each, those of one session next to each other."""

    def ranks(self, sessions: Sessions) -> NDArray[np.int64]:
        """As `Method.ranks`, one for each text of a session."""
        texts = self.texts(sessions)
        num_texts = len(texts) // max(1, len(sessions))
        targets, histories = (np.repeat(x, num_texts, axis=0) for x in (sessions.targets, sessions.histories))
        return self.recommender.ranks(texts, targets, histories).reshape(len(sessions), -1)
