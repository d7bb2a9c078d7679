"""What the policy writes about, as the loop sees it: subjects, each with a prompt and with choices that judge its text.

The loop samples texts, asks how well they rank, and takes steps. Whether a text is the profile of a session or the
description of an item is for the subjects to know.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from langptune_rs.arrays import Ragged
from langptune_rs.config import RunConfig
from langptune_rs.config.description import Writes
from langptune_rs.data import Catalog, Dataset, Sessions
from langptune_rs.rollout.copying import titles_of
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.training.ranking import Ranking
from langptune_rs.training.reward_targets import reward_targets


class Subjects(Protocol):
    """n subjects that a policy writes texts about."""

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,): a number of each subject, from which its samples are drawn."""

    def prompts(self, rows: NDArray[np.int64], writer: ProfileWriter) -> list[list[int]]:
        """Token ids of the prompts of the subjects at `rows`."""

    def sources(self, rows: NDArray[np.int64]) -> list[str]:
        """What a text about each of the subjects at `rows` may be copied from."""

    def score(
        self, rows: NDArray[np.int64], written: Profiles, ranking: Ranking, *, temperature: float
    ) -> tuple[Ragged, Ragged]:
        """How well texts about the subjects at `rows` rank, equally many for each, one subject after the other.

        Returns (ranks, log_probs): 1-based ranks, and ln softmax(similarity / temperature), with a row for each text
        and in it a number for each choice that judges it, one or more.
        """


@dataclass(frozen=True)
class Assignment:
    """What a policy is set to write."""

    train: Subjects
    """What it learns from."""
    validation: Subjects
    """What it is scored on between phases; there may be none."""
    others: Sequence[Subjects]
    """What it will write about after training. Their prompts must fit the policy too."""
    num_available: int
    """How many there would be to learn from without the recipe's limit."""
    name: str
    """What is counted there, in the plural."""


def train_sessions(config: RunConfig, dataset: Dataset) -> Sessions:
    """The train sessions that a recipe learns from."""
    return dataset.sessions.select("train").sample(config.data.max_sessions, config.seed)


def profiles_of_sessions(config: RunConfig, dataset: Dataset) -> Assignment:
    """The assignment of the paper: the profile of each session, rewarded by what its user chose next."""
    catalog, sessions = dataset.catalog, train_sessions(config, dataset)
    seed, of_evaluation = config.data.seed, config.evaluation
    validation = dataset.sessions.select("validation").sample(of_evaluation.validation_sessions, seed)
    test = dataset.sessions.select("test").sample(of_evaluation.max_sessions, seed)
    return Assignment(
        train=SessionsToProfile(sessions, catalog, reward_targets(config, dataset, sessions)),
        validation=SessionsToProfile(validation, catalog),
        others=[SessionsToProfile(test, catalog)],
        num_available=dataset.sessions.splits.count("train"),
        name="training sessions",
    )


@dataclass(frozen=True)
class Task:
    """A kind of text that a policy learns to write."""

    writes: Writes
    """Its name in a recipe."""
    assign: Callable[[RunConfig, Dataset], Assignment]
    """Makes the assignment of a recipe and its data set."""


PROFILES = Task("profiles", profiles_of_sessions)
"""That of the paper, and of `langptune train`."""


class SessionsToProfile:
    """Sessions, each of which gets a profile. A profile is judged by the rank of the session's targets."""

    def __init__(self, sessions: Sessions, catalog: Catalog, targets: Sequence[NDArray[np.int64]] | None = None):
        """`targets` has the items that each session is judged by; None for its own target."""
        self._sessions, self._catalog, self._targets = sessions, catalog, targets

    @property
    def ids(self) -> NDArray[np.int64]:
        """The ids of the sessions."""
        return self._sessions.session_ids

    def prompts(self, rows: NDArray[np.int64], writer: ProfileWriter) -> list[list[int]]:
        """The histories of the sessions."""
        return writer.prompts(self._sessions.take(rows))

    def sources(self, rows: NDArray[np.int64]) -> list[str]:
        """The titles of the histories."""
        return titles_of(self._sessions.take(rows), self._catalog)

    def score(
        self, rows: NDArray[np.int64], written: Profiles, ranking: Ranking, *, temperature: float
    ) -> tuple[Ragged, Ragged]:
        """The targets among all items outside the history, by each profile."""
        sessions = self._sessions.take(rows)
        targets = sessions.targets if self._targets is None else [self._targets[row] for row in rows]
        return ranking.score_targets(written, targets, sessions.histories, temperature=temperature)
