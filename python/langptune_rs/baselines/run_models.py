"""The models of a run and the profiles they wrote, shared by all methods that the run is compared with."""

from __future__ import annotations

from collections.abc import Mapping

from langptune_rs.recommending.recommender import Recommender
from langptune_rs.rollout.profile_sets import ProfileSets
from langptune_rs.runs.trained import TrainedRun


class RunModels:
    """The recommenders of a run, before and after training, and the profiles that its policies wrote.

    Only one recommender is in memory at a time: asking for the other one embeds the catalog again.
    """

    def __init__(self, run: TrainedRun, profiles: Mapping[bool, ProfileSets]):
        """`profiles` are those of the sessions to rank, by whether the policy that wrote them was trained."""
        self.run, self.profiles = run, profiles
        self._recommender: tuple[bool, Recommender] | None = None

    def recommender(self, *, trained: bool) -> Recommender:
        """The recommender with the trained or the initial embedder."""
        if self._recommender is None or self._recommender[0] != trained:
            self._recommender = None
            self._recommender = trained, self.run.recommender(trained=trained)
        return self._recommender[1]
