"""A finished run in use: it writes a profile for a history and recommends items for a profile.

Each model is loaded when it is first needed, so ranking by a profile that a person wrote needs no language model. Many
threads may use one service.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from langptune_rs.config import RunConfig
from langptune_rs.data import Catalog, Dataset
from langptune_rs.errors import DataError, InputError, RunError, nearest
from langptune_rs.recommending.edits import Edit, Profile
from langptune_rs.recommending.explaining import Explanation
from langptune_rs.recommending.recommender import Recommender, check_items, check_k, check_request
from langptune_rs.recommending.sentences import By
from langptune_rs.recommending.steering import Steering
from langptune_rs.recommending.vectors import unread_of
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.runs.trained import TrainedRun
from langptune_rs.serving.encoding import SharedEncoder
from langptune_rs.serving.item_embeddings import embed_catalog
from langptune_rs.serving.lazy import Lazy

REWRITE = """Here is what a user likes:

{profile}

The user asks for a change: {instruction}

Write what the user likes again, with this change. Keep all else as it is. Write nothing else."""
"""What the policy is told for `ProfileService.propose`."""


class ProfileService:
    """Writes profiles with a run's policy and ranks its catalog with its embedder."""

    def __init__(self, run: TrainedRun, on_encoding: Callable[[int], object] = lambda size: None):
        """`on_encoding` is called with the number of texts of each batch that the embedder reads."""
        self.run = run
        # None of these refers to the service, so that it and its models go as soon as nobody uses them.
        dataset = self._dataset = Lazy(lambda: run.dataset)
        self._by_popularity = Lazy(lambda: np.argsort(-dataset().popularity, kind="stable"))
        self._recommender = Lazy(partial(_load_recommender, run, dataset, on_encoding))
        self._writers = {True: Lazy(partial(_load_writer, run)), False: Lazy(lambda: run.writer(trained=False))}
        """Of the trained policy and of the initial one."""
        self._writing = Lock()

    @classmethod
    def open(cls, folder: str | Path, on_encoding: Callable[[int], object] = lambda size: None) -> ProfileService:
        """The service of a finished run, with or without a policy. Raises `RunError` when `folder` holds none."""
        return cls(TrainedRun.open(folder, models=["embedder"]), on_encoding)

    @property
    def config(self) -> RunConfig:
        """The run's recipe."""
        return self.run.config

    @property
    def dataset(self) -> Dataset:
        """The run's data set."""
        return self._dataset()

    @property
    def catalog(self) -> Catalog:
        """The items that are ranked."""
        return self.dataset.catalog

    def history_of(self, user: str) -> tuple[list[int], list[float], list[str | None]]:
        """Item indexes, ratings (NaN for none) and reviews of a user's newest session in the data, oldest first.

        Raises `DataError` with the nearest ids when the data set does not hold the user.
        """
        sessions = self.dataset.sessions
        rows = sessions.user_ids.rows_of(user)
        if not rows.size:
            least = self.dataset.info["config"].get("min_interactions")  # the published split has none
            raise DataError(
                f"There is no user {user!r} with a session in the data of {self.run.folder}."
                f"{nearest(user, sessions.user_ids.near(user), most=3)}"
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
        *,
        trained: bool = True,
        on_token: Callable[[], object] = lambda: None,
    ) -> str:
        """The greedily decoded profile of a history: item indexes, oldest first, with the user's ratings and reviews.

        It is what the trained policy writes, or the one that training started from. One is written at a time.
        `on_token` is called before each token; what it raises ends the writing.

        Raises `InputError` for an empty history, an index out of range, or lists of different length, `RunError` for a
        run without a policy, and `ContextError` when the history is longer than the model's context.
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
        writer = self._writers[trained]()
        with self._writing:
            prompt = writer.history_prompt(history, known, reviews)
            return writer.write([prompt], greedy=True, on_token=on_token).texts[0]

    def text_and_history(self, user: str | None, profile: str | None) -> tuple[str, list[int]]:
        """The profile given, or the one that the policy writes for a user, and the history that is not ranked for it.

        A profile given without a user has no history. The errors are those of `history_of` and `profile`.
        """
        if user is None:
            return profile or "", []
        history, ratings, reviews = self.history_of(user)
        return (self.profile(history, ratings, reviews) if profile is None else profile), history

    def propose(self, profile: str, instruction: str, *, on_token: Callable[[], object] = lambda: None) -> str:
        """The profile as the policy rewrites it by an instruction, such as "less horror", decoded greedily.

        It is a proposal: a person reads it before it takes the place of the profile (`Rewrite`).
        `on_token` is that of `profile`. Raises `InputError` for an empty profile or instruction, `RunError` for a run
        without a policy, and `ContextError` when both are longer than the policy's context.
        """
        check_request(profile, 1, (), len(self.catalog))
        if not instruction.strip():
            raise InputError('the instruction is empty: say what to change, such as "less horror"')
        message = REWRITE.format(profile=profile, instruction=instruction)
        writer = self._writers[True]()
        with self._writing:
            prompt = writer.policy.encode_prompt(message)
            return writer.write([prompt], greedy=True, on_token=on_token).texts[0]

    def item_of(self, name: str) -> int:
        """The index of an item by its id or, where no item has that id, its title.

        Raises `DataError` with what is nearest where there is neither.
        """
        try:
            return self.catalog.index_of(name)
        except DataError:
            try:
                return self.catalog.index_of_title(name)
            except DataError:
                titles = self.catalog.titles.near(name)
                begin = [title for title in titles if title.casefold().startswith(name.casefold())][:3]
                begin_so = f" Titles that begin so: {', '.join(map(repr, begin))}."
                near = begin_so if begin else nearest(name, [*self.catalog.item_ids.near(name), *titles])
                raise DataError(
                    f"No item of the catalog ({len(self.catalog)} items) has the id or the title {name!r}.{near}"
                ) from None

    def explain(
        self, profile: str | Profile, item: int, history: Sequence[int] = (), by: By = "sentence"
    ) -> Explanation:
        """What every sentence (or word) of a profile does to an item; the errors are those of `Recommender.explain`."""
        return self._recommender().explain(profile, item, history, by)

    def steer(self, profile: str | Profile, *edits: Edit, exclude: Sequence[int] = ()) -> Steering:
        """The ranking before and after edits; the errors are those of `Recommender.steer`."""
        return self._recommender().steer(profile, *edits, exclude=exclude)

    def unread(self, profile: str | Profile) -> str:
        """What the embedder does not read of a profile's text and of its requests; empty where it reads all."""
        return unread_of(self._recommender().encoder, Profile.of(profile))

    def recommend(
        self, profile: str | Profile, k: int = 20, exclude: Sequence[int] = ()
    ) -> list[tuple[str, str, float]]:
        """The k items nearest to a profile as (item_id, title, score), best first; score is the cosine similarity.

        `exclude` and the errors are those of `Recommender.recommend`.
        """
        check_request(profile, k, exclude, len(self.catalog))
        items, scores = self._recommender().recommend(profile, k, exclude)
        return [
            (self.catalog.item_ids[item], self.catalog.titles[item], float(score))
            for item, score in zip(items, scores, strict=True)
        ]

    def popular(self, k: int = 20, exclude: Sequence[int] = ()) -> list[tuple[str, str, int]]:
        """The k items with the most interactions as (item_id, title, interactions), most first.

        `exclude` and the errors are those of `recommend`.
        """
        check_k(k, exclude, len(self.catalog))
        popularity, order = self.dataset.popularity, self._by_popularity()
        left = order[~np.isin(order, list(exclude))][:k]
        return [(self.catalog.item_ids[item], self.catalog.titles[item], int(popularity[item])) for item in left]

    @property
    def has_policy(self) -> bool:
        """Whether the run has a trained policy."""
        return _has_policy(self.run)

    def load(self) -> None:
        """Load the data and the trained models now, with all that is found out of them when they are first used."""
        self._recommender()
        _ = self._by_popularity()
        if self.has_policy:
            self._writers[True]()


def _load_writer(run: TrainedRun) -> ProfileWriter:
    if not _has_policy(run):
        raise RunError(
            f"{run.folder} has no trained policy, so it writes no profiles: it trained an embedder alone. "
            "Pass a text that a person or another run wrote: `--profile TEXT`, or `--rewrite TEXT` for a change of it."
        )
    writer = run.writer()
    writer.keep_ready()
    return writer


def _has_policy(run: TrainedRun) -> bool:
    return (run.folder / "policy").is_dir()


def _load_recommender(
    run: TrainedRun, dataset: Callable[[], Dataset], on_encoding: Callable[[int], object]
) -> Recommender:
    embedder, embeddings = embed_catalog(run, dataset())
    return Recommender(embedder, embeddings, SharedEncoder(embedder, on_encoding))
