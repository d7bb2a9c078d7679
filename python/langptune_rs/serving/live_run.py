"""The run that is served. Another one takes its place as a whole, between two requests."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np
import polars as pl

from langptune_rs.data.preparing.ratings import from_stars, in_stars
from langptune_rs.errors import InputError, RunError
from langptune_rs.models.memory import trim_freed_memory
from langptune_rs.runs.results import BASELINE, profiles_path, read_profiles
from langptune_rs.serving.kept import Kept
from langptune_rs.serving.lazy import Lazy
from langptune_rs.serving.searching import Users
from langptune_rs.serving.service import ProfileService

NUM_KEPT = 10_000
"""Profiles that are kept for histories that come again."""
_TRIES = 3
"""How often a run is loaded whose files change meanwhile."""


@dataclass(frozen=True)
class History:
    """A history as the policy reads it: item indexes, ratings in stars (NaN for none), and reviews. Oldest first."""

    items: tuple[int, ...]
    ratings: tuple[float, ...]
    reviews: tuple[str | None, ...]

    @property
    def key(self) -> tuple[object, ...]:
        """The same for the same history; a NaN is no key, since it is not equal to itself."""
        return self.items, tuple(None if np.isnan(rating) else rating for rating in self.ratings), self.reviews


class LoadedRun:
    """A run with its data and its models in memory, so that the first request is as quick as the others.

    Attributes:
        service: what answers by the models.
        version: a hash of the content of the models.
        users: who is in the data.
    """

    def __init__(self, service: ProfileService):
        """Raises what loading the data and the models of `service` raises."""
        self.service = service
        self.version = service.run.version
        service.load()
        service.recommend("a", k=1)
        self.users = Users(service.dataset)
        self._written: Kept[tuple[object, ...], str] = Kept(NUM_KEPT)
        self._saved = Lazy(partial(_saved_untrained, service.run.folder))

    def history_of(self, user: str) -> History:
        """The newest history of a user. Raises `DataError`, with the nearest id, for a user whom the data lacks."""
        self.users.check(user)
        items, ratings, reviews = self.service.history_of(user)
        return History(tuple(items), tuple(ratings), tuple(reviews))

    def history(self, items: Sequence[tuple[str, float | None, str | None]]) -> History:
        """A history of items by their ids or titles, with ratings on the data set's scale, and reviews.

        Raises `DataError`, with the nearest name, for an item that the catalog lacks, and `InputError` for a rating
        that is not on the scale.
        """
        scale = self.service.dataset.rating_scale
        for _, rating, _ in items:
            if rating is not None and not scale.low <= rating <= scale.high:
                raise InputError(f"the rating {rating:.12g} is not from {scale.words}, the scale of the data set")
        return History(
            tuple(self.service.item_of(name) for name, _, _ in items),
            tuple(float("nan") if rating is None else in_stars(rating, scale) for _, rating, _ in items),
            tuple(review or None for _, _, review in items),
        )

    def rating_of(self, stars: float) -> float | None:
        """A rating of a history on the data set's scale; None for none."""
        return None if np.isnan(stars) else round(from_stars(float(stars), self.service.dataset.rating_scale), 6)

    def written(self, history: History, *, trained: bool) -> str | None:
        """The profile of a history, if it was written before."""
        return self._written.get((trained, history.key))

    def write(self, history: History, *, trained: bool, on_token: Callable[[], object]) -> str:
        """The profile of a history. What is raised is that of `ProfileService.profile`."""
        known = self.written(history, trained=trained)
        if known is not None:
            return known
        text = self.service.profile(history.items, history.ratings, history.reviews, trained=trained, on_token=on_token)
        self._written.keep((trained, history.key), text)
        return text

    def saved_untrained(self, user: str) -> str | None:
        """What the initial policy wrote about a user's newest session in the run's evaluation, if it was evaluated."""
        sessions = self.service.dataset.sessions
        newest = sessions.user_ids.rows_of(user)[-1]
        return self._saved().get(int(sessions.session_ids[newest]))


class LiveRun:
    """The loaded run, and how another one takes its place.

    A request takes `current` once and works with it to its end, so that no answer mixes two runs.
    """

    def __init__(self, path: Path, on_encoding: Callable[[int], object] = lambda size: None):
        """`path` is a run's folder, or a link to one."""
        self.path = path
        self._on_encoding = on_encoding
        self._loading = Lock()
        self._current: LoadedRun | None = None

    @property
    def current(self) -> LoadedRun | None:
        """The run that answers now; None while the first one is loaded."""
        return self._current

    def reload(self) -> bool:
        """Load what `path` holds now, then put it in place. Returns whether it has other models than the current run.

        Where it has not, and where loading fails, the current run stays. Raises what loading raises.
        """
        with self._loading:
            loaded = self._load()
            if loaded is None:
                return False
            self._current = loaded
        del loaded
        gc.collect()  # a model refers to itself
        trim_freed_memory()
        return True

    def _load(self) -> LoadedRun | None:
        """The run that `path` holds now, None if it is the current one. A link is followed once."""
        for _ in range(_TRIES):
            folder = self.path.resolve()
            service = ProfileService.open(folder, self._on_encoding)
            now = self._current
            if now is not None and (now.service.run.folder, now.version) == (folder, service.run.version):
                return None
            loaded = LoadedRun(service)
            if loaded.version == service.run.version:
                return loaded
        raise RunError(f"The models in {self.path} changed each time they were read. Reload when they are whole.")


def _saved_untrained(run: Path) -> dict[int, str]:
    """Session -> the greedy profile of the initial policy, from the run's evaluations; empty where there are none."""
    found: dict[int, str] = {}
    for split in ("train", "validation", "test"):
        if profiles_path(run, split).is_file():
            rows = read_profiles(run, split).filter(pl.col("policy") == BASELINE, pl.col("decoding") == "greedy")
            found |= dict(zip(rows["session_id"].to_list(), rows["text"].to_list(), strict=True))
    return found
