"""The writer of profiles: a policy, the prompts of a data set, and the recipe's decoding settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TypedDict

import numpy as np

from langptune_rs.config.profile import ProfileConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.batches import Reader, reading
from langptune_rs.rollout.sampling import OnBatch, Profiles, check_context, write_profiles


class WriteOptions(TypedDict, total=False):
    """The options of `ProfileWriter.write`, for those who hand them on."""

    greedy: bool
    num_samples: int
    seeds: Sequence[int] | None
    keep_states: bool
    kept: Sequence[list[list[int]]]


class ProfileWriter:
    """Writes profiles with a recipe's prompt, token limit, temperature and token budget."""

    def __init__(self, policy: Policy, dataset: Dataset, config: ProfileConfig):
        self.policy, self.dataset, self.config = policy, dataset, config
        self._reader: Reader | None = None
        self._opened = ExitStack()

    def keep_ready(self) -> None:
        """Keep the weights in the form that writing needs. They must not change any more.

        This takes as much memory as the weights again. Without it each `write` makes that form anew, which is a third
        of the time of a single short profile.
        """
        if self._reader is None:
            self._reader = self._opened.enter_context(reading(self.policy))

    def prompts(self, sessions: Sessions) -> list[list[int]]:
        """Token ids of the prompt of every session, in order."""
        return [self.policy.encode_prompt(self.dataset.prompt(sessions, i, self.config)) for i in range(len(sessions))]

    def history_prompt(
        self, items: Sequence[int] | np.ndarray, ratings: Sequence[float] | np.ndarray, reviews: Sequence[str | None]
    ) -> list[int]:
        """Token ids of the prompt of a history, oldest first: item indexes, ratings (NaN for none) and reviews."""
        return self.policy.encode_prompt(self.dataset.history_prompt(items, ratings, reviews, self.config))

    def check_context(self, prompts: Sequence[Sequence[int]]) -> None:
        """Raise `ContextError` when the longest prompt and `profile.max_tokens` do not fit the policy's context."""
        check_context(self.policy, prompts, self.config.max_tokens)

    def write(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        greedy: bool = False,
        num_samples: int = 0,
        seeds: Sequence[int] | None = None,
        keep_states: bool = False,
        kept: Sequence[list[list[int]]] = (),
        on_batch: OnBatch | None = None,
        on_token: Callable[[], object] = lambda: None,
    ) -> Profiles:
        """The profiles of each prompt in turn: the greedy one if asked for, then `num_samples` samples.

        Samples are drawn at the recipe's temperature and need `seeds`, one for each prompt. `keep_states`, `kept`,
        `on_batch` and `on_token` are those of `write_profiles`, and so are the errors.
        """
        return write_profiles(
            self.policy,
            prompts,
            max_tokens=self.config.max_tokens,
            temperatures=[0.0] * greedy + [self.config.temperature] * num_samples,
            seeds=seeds,
            token_budget=self.config.token_budget,
            keep_states=keep_states,
            kept=kept,
            on_batch=on_batch,
            on_token=on_token,
            reader=self._reader,
        )
