"""A finished run in use: it writes a profile for a history and recommends items for a profile.

Each model is loaded when it is first needed, so ranking by a profile that a person wrote needs no language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from langptune_rs.config import RunConfig
from langptune_rs.data import Catalog, Dataset
from langptune_rs.errors import DataError, InputError, nearest
from langptune_rs.recommending.recommender import Recommender, check_items, check_request
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.runs.trained import TrainedRun


class ProfileService:
    """Writes profiles with a run's policy and ranks its catalog with its embedder."""

    def __init__(self, run: TrainedRun):
        self.run = run

    @classmethod
    def open(cls, folder: str | Path) -> ProfileService:
        """The service of a finished run. Raises `RunError` when `folder` holds none."""
        return cls(TrainedRun.open(folder))

    @property
    def config(self) -> RunConfig:
        """The run's recipe."""
        return self.run.config

    @property
    def dataset(self) -> Dataset:
        """The run's data set."""
        return self.run.dataset

    @property
    def catalog(self) -> Catalog:
        """The items that are ranked."""
        return self.dataset.catalog

    def history_of(self, user: str) -> tuple[list[int], list[float], list[str | None]]:
        """Item indexes, ratings (NaN for none) and reviews of a user's newest session in the data, oldest first.

        Raises `DataError` with the nearest id when the data set does not hold the user.
        """
        sessions = self.dataset.sessions
        rows = sessions.user_ids.rows_of(user)
        if not rows.size:
            least = self.dataset.info["config"].get("min_interactions")  # the published split has none
            raise DataError(
                f"There is no user {user!r} with a session in the data of {self.run.folder}."
                f"{nearest(user, sessions.user_ids.near(user))}"
                f" Users with {'too few' if least is None else f'fewer than {least}'} interactions, or too few "
                "different items for a session, were left out: the counts are in dataset.toml. For such a user write "
                "the history into a file: `langptune profile RUN --history FILE`."
            )
        newest = rows[-1]
        return sessions.histories[newest].tolist(), sessions.ratings[newest].tolist(), sessions.reviews[newest]

    def profile(
        self,
        history: Sequence[int],
        ratings: Sequence[float | None] | None = None,
        reviews: Sequence[str | None] | None = None,
    ) -> str:
        """The greedily decoded profile of a history: item indexes, oldest first, with the user's ratings and reviews.

        Raises `InputError` for an empty history, an index out of range, or lists of different length, and `ModelError`
        when the history is longer than the model's context.
        """
        ratings = [None] * len(history) if ratings is None else ratings
        reviews = [None] * len(history) if reviews is None else reviews
        check_items(history, len(self.catalog), "history")
        if not history or not len(history) == len(ratings) == len(reviews):
            raise InputError(
                f"a history of {len(history)} items came with {len(ratings)} ratings and {len(reviews)} reviews: "
                "pass at least one item, and one rating and one review (or None) for each"
            )
        known = [float("nan") if rating is None else rating for rating in ratings]
        prompt = self._writer.history_prompt(history, known, reviews)
        return self._writer.write([prompt], greedy=True).texts[0]

    def recommend(self, profile: str, k: int = 20, exclude: Sequence[int] = ()) -> list[tuple[str, str, float]]:
        """The k items nearest to a profile as (item_id, title, score), best first; score is the cosine similarity.

        `exclude` and the errors are those of `Recommender.recommend`.
        """
        check_request(profile, k, exclude, len(self.catalog))
        items, scores = self._recommender.recommend(profile, k, exclude)
        return [
            (self.catalog.item_ids[item], self.catalog.titles[item], float(score))
            for item, score in zip(items, scores, strict=True)
        ]

    @cached_property
    def _writer(self) -> ProfileWriter:
        return self.run.writer()

    @cached_property
    def _recommender(self) -> Recommender:
        return self.run.recommender()
