"""The common parts of the programs that benches/rlso_step.py compares: sessions, prompts, reward and clock."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langptune_rs.config.data import DataConfig
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.config.policy import PolicyConfig
from langptune_rs.config.profile import ProfileConfig
from langptune_rs.data import Dataset, Sessions, open_source
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.policy import Policy
from langptune_rs.models.tokens import token_counters
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.rollout.writer import ProfileWriter

LEARNING_RATE = 1e-6
EMBEDDER = EmbedderConfig()


@dataclass(frozen=True)
class Settings:
    """The size of a step; the model is SmolLM2-135M-Instruct, the prompts are by default those of appendix B."""

    source: str
    num_sessions: int
    num_profiles: int
    max_tokens: int
    last_layers: int
    epochs: int
    profile: ProfileConfig = field(default_factory=ProfileConfig)

    @property
    def policy(self) -> PolicyConfig:
        """The recipe's section about the policy."""
        return PolicyConfig(last_layers=self.last_layers)


class Work:
    """The sessions of one step, their prompts in the policy's tokens, and the recommender that rewards profiles."""

    def __init__(self, settings: Settings, policy: Policy):
        self.dataset = _dataset(settings)
        self.sessions: Sessions = self.dataset.sessions.select("train").sample(settings.num_sessions, 0)
        self.prompts = ProfileWriter(policy, self.dataset, settings.profile).prompts(self.sessions)
        embedder = Embedder.load(EMBEDDER)
        self.recommender = Recommender.of_catalog(embedder, self.dataset.catalog)

    def ranks(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """1-based rank of each profile's target, (profiles,), session-major."""
        return self.recommender.ranks(texts, self.sessions.targets, self.sessions.histories).ravel()


def _dataset(settings: Settings) -> Dataset:
    config = DataConfig(source=settings.source, windows="all")
    folder = Path(tempfile.gettempdir()) / "langptune-rlso-step" / Path(settings.source).name
    return open_source(config, folder, token_counters(EMBEDDER.model, settings.policy.model))


class Clock:
    """Measures the seconds of the parts of a step."""

    def __init__(self) -> None:
        self.seconds = {"rollout": 0.0, "update": 0.0}
        self._started = time.perf_counter()

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        start = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - start

    def results(self, profile_lengths: Sequence[int], epochs: int) -> dict[str, float]:
        """The numbers that a program prints; `profile_lengths` are in tokens."""
        rollout, update = self.seconds["rollout"], self.seconds["update"]
        tokens = sum(profile_lengths)
        return {
            "seconds_per_step": time.perf_counter() - self._started,
            "rollout_seconds": rollout,
            "update_seconds": update,
            "rollout_tokens_per_second": tokens / rollout,
            "update_tokens_per_second": tokens * epochs / update if update else 0.0,
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "tokens_per_profile": tokens / len(profile_lengths),
        }
