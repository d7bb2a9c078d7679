"""The trained models of a run at work: a history in, a profile out; a profile in, items out.

Each model is loaded when it is first needed, so that ranking by a profile that a person wrote needs no language model.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np

from langptune_rs import ItemIndex
from langptune_rs.config import RunConfig
from langptune_rs.data import Catalog, Dataset
from langptune_rs.errors import DataError, InputError, RunError, nearest
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.policy import Policy
from langptune_rs.models.precision import COMPUTE_DTYPES
from langptune_rs.rollout.sampling import write_profiles
from langptune_rs.runs.folder import open_dataset, read_config


class Recommender:
    """Writes profiles with a run's policy and ranks its catalog with its embedder."""

    def __init__(self, run: Path, config: RunConfig, dataset: Dataset):
        self.run, self.config, self.dataset = run, config, dataset

    @classmethod
    def open(cls, run: str | Path) -> Recommender:
        """The models and the data of a finished run. Raises `RunError` when `run` is none."""
        run = Path(run)
        config = read_config(run)
        for name in ("policy", "embedder"):
            if not (run / name).is_dir():
                raise RunError(
                    f"{run} has no trained {name} yet: there is no folder {name} in it. "
                    f"Finish the training with `langptune train --output {run} --resume`."
                )
        return cls(run, config, open_dataset(config, run))

    @property
    def catalog(self) -> Catalog:
        return self.dataset.catalog

    def history_of(self, user: str) -> tuple[list[int], list[float], list[str | None]]:
        """Item indexes, ratings (NaN for none) and reviews of a user's newest session in the data, oldest first.

        Raises `DataError` with the nearest id for a user that the data set does not hold.
        """
        sessions = self.dataset.sessions
        rows = sessions.user_ids.rows_of(user)
        if not rows.size:
            raise DataError(
                f"There is no user {user!r} with a session in the data of {self.run}."
                f"{nearest(user, sessions.user_ids.near(user))}"
                f" Users with fewer than {self.dataset.info['config']['min_interactions']} interactions, or too few "
                "different items for a session, were left out of it: the counts are in its dataset.toml. For such a "
                "user write the history into a file: `langptune profile RUN --history FILE`."
            )
        newest = rows[-1]
        return sessions.histories[newest].tolist(), sessions.ratings[newest].tolist(), sessions.reviews[newest]

    def profile(
        self,
        history: Sequence[int],
        ratings: Sequence[float | None] | None = None,
        reviews: Sequence[str | None] | None = None,
    ) -> str:
        """The greedily decoded profile of a history: item indexes, oldest first, with what the user said of each.

        Raises `InputError` for an empty history, an index out of range, or lists of different length; `ModelError`
        when the history is longer than the model's context.
        """
        ratings = [None] * len(history) if ratings is None else ratings
        reviews = [None] * len(history) if reviews is None else reviews
        self._check_items(history, "history")
        if not history or not len(history) == len(ratings) == len(reviews):
            raise InputError(
                f"a history of {len(history)} items came with {len(ratings)} ratings and {len(reviews)} reviews: "
                "pass at least one item, and one rating and one review (or None) for each"
            )
        known = [float("nan") if rating is None else rating for rating in ratings]
        prompt = self.dataset.history_prompt(history, known, reviews, self.config.profile)
        written = write_profiles(
            self._policy,
            [self._policy.encode_prompt(prompt)],
            max_tokens=self.config.profile.max_tokens,
            temperatures=[0.0],
        )
        return written.texts[0]

    def recommend(self, profile: str, k: int = 20, exclude: Sequence[int] = ()) -> list[tuple[str, str, float]]:
        """The k items nearest to a profile as (item_id, title, score), best first; score is the cosine similarity.

        `exclude` holds item indexes that are left out, such as the user's history.
        Raises `InputError` for an empty profile, or more items than the catalog has left.
        """
        if not profile.strip():
            raise InputError("the profile is empty: write at least a word about what the user likes")
        self._check_items(exclude, "exclude")
        num_left = len(self.catalog) - len(set(exclude))
        if not 1 <= k <= num_left:
            raise InputError(f"k = {k}: the catalog has {num_left} items to recommend, pass a number from 1 to that")
        user = self._embedder.encode_profiles([profile])
        excluded = np.array([list(exclude)], dtype=np.int64)
        scores, items = self._index.search(user, k, exclude=excluded)
        return [
            (self.catalog.item_ids[item], self.catalog.titles[item], float(score))
            for item, score in zip(items[0], scores[0], strict=True)
        ]

    def _check_items(self, items: Sequence[int], name: str) -> None:
        for item in items:
            if not 0 <= item < len(self.catalog):
                raise InputError(
                    f"{name} holds item {item}: the catalog's indexes go from 0 to {len(self.catalog) - 1}"
                )

    @cached_property
    def _policy(self) -> Policy:
        return Policy.from_folder(self.run / "policy", self.config.policy, COMPUTE_DTYPES[self.config.engine.precision])

    @cached_property
    def _embedder(self) -> Embedder:
        return Embedder.from_folder(
            self.run / "embedder", self.config.embedder, COMPUTE_DTYPES[self.config.engine.precision]
        )

    @cached_property
    def _index(self) -> ItemIndex:
        return ItemIndex(self._embedder.encode_items(self.catalog.texts))
