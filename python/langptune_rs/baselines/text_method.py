"""Methods that describe a session by text, which an embedder compares with the items."""

from __future__ import annotations

from abc import abstractmethod

from langptune_rs.baselines.method import Method, ScoredSessions
from langptune_rs.data import Sessions
from langptune_rs.evaluation.summary import LIKELIHOOD_TEMPERATURE
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

    def score_targets(self, sessions: Sessions) -> ScoredSessions:
        """See `Method.score_targets`; one ranking for each text of a session."""
        ranks, log_probs = self.recommender.score_targets(
            self.texts(sessions), sessions.targets, sessions.histories, temperature=LIKELIHOOD_TEMPERATURE
        )
        shape = len(sessions), -1
        return ScoredSessions(ranks.values.reshape(shape), log_probs.values.reshape(shape))
