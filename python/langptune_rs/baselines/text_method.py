"""Methods that describe a session by text, which an embedder compares with the items."""

from __future__ import annotations

from abc import abstractmethod

from langptune_rs.baselines.method import Method, ScoredSessions
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.data import Sessions
from langptune_rs.evaluation.summary import LIKELIHOOD_TEMPERATURE
from langptune_rs.models.embedder import encoder_size
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


def history_limits(embedder: EmbedderConfig) -> tuple[int, ...]:
    """The tokens of a text to try for a method that reads histories: the recipe's, and the encoder's own limit.

    A recipe may have a low limit, since profiles are short. There is one value where the encoder reads no more, or has
    no limit.
    """
    own = encoder_size(embedder).max_tokens or 0
    return (embedder.max_tokens, own) if own > embedder.max_tokens else (embedder.max_tokens,)
