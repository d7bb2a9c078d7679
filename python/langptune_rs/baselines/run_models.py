"""The models of a run and the profiles they wrote, shared by all methods that the run is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from langptune_rs.recommending.recommender import Recommender
from langptune_rs.rollout.profile_sets import ProfileSets
from langptune_rs.runs.trained import TrainedRun


@dataclass(frozen=True)
class RunProfiles:
    """What the policies of a run wrote for the same sessions."""

    initial: ProfileSets
    trained: ProfileSets
    """The same as `initial` where the run has not trained its policy."""


class RunModels:
    """The recommenders of a run, before and after training, and the profiles that its policies wrote.

    Only one recommender is in memory at a time: asking for the other one embeds the catalog again.
    """

    def __init__(self, run: TrainedRun, profiles: RunProfiles):
        """`profiles` are those of the sessions to rank."""
        self.run, self.profiles = run, profiles
        self._recommender: tuple[bool, Recommender] | None = None

    def recommender(self, *, trained: bool) -> Recommender:
        """The recommender with the trained or the initial embedder."""
        if self._recommender is None or self._recommender[0] != trained:
            self._recommender = None
            self._recommender = trained, self.run.recommender(trained=trained)
        return self._recommender[1]
