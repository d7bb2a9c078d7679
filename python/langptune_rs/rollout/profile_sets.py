"""The profiles that one policy writes for many sessions: a greedy one for each, and samples."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from langptune_rs.data import Sessions
from langptune_rs.distributed.collectives import gather_objects, shard
from langptune_rs.rollout.copying import copied_shares
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.seeds import evaluation_seed

Bar = Callable[[int, str], AbstractContextManager[Callable[..., None]]]
"""Makes a progress bar from its total and its description, as `progress.progress` does."""


@dataclass(frozen=True)
class WrittenProfiles:
    """Profiles of one policy and one way of decoding: `num_samples` for each session, one session after the other."""

    texts: list[str]
    num_tokens: np.ndarray
    """int64 (n,), the end-of-turn token counted"""
    finished: np.ndarray
    """bool (n,): ended within the limit"""
    copied_shares: np.ndarray
    """float64 (n,)"""
    num_samples: int = 1

    def statistics(self) -> dict[str, float]:
        """Mean number of tokens, share of profiles that are overlong, and mean share of copied words."""
        return {
            "tokens": float(self.num_tokens.mean()),
            "overlong_rate": float(1 - self.finished.mean()),
            "copied_share": float(self.copied_shares.mean()),
        }


@dataclass(frozen=True)
class ProfileSets:
    """The greedy and the sampled profiles of one policy for the same sessions."""

    greedy: WrittenProfiles
    sampled: WrittenProfiles | None


def write_profile_sets(
    writer: ProfileWriter, sessions: Sessions, *, num_samples: int, seed: int, bar: Bar, name: str
) -> ProfileSets:
    """One greedy profile for each session, and `num_samples` sampled ones; every rank gets all of them.

    Samples are seeded by the session, so every policy draws the same random numbers for it. Each rank writes the
    profiles of its share of the sessions.
    """
    own = sessions.take(np.arange(len(sessions))[shard(range(len(sessions)))])
    prompts = writer.prompts(own)
    num_profiles = 1 + num_samples
    with bar(len(prompts) * num_profiles, f"{name}: profiles") as advance:
        written_here = writer.write(
            prompts,
            greedy=True,
            num_samples=num_samples,
            seeds=[evaluation_seed(seed, int(session)) for session in own.session_ids],
            on_batch=lambda written: advance(len(written)),
        )
    copied_here = copied_shares(written_here.texts, own, writer.dataset.catalog)
    parts, shares = zip(*gather_objects((written_here, copied_here)), strict=True)
    profiles, copied = Profiles.joined(parts), np.concatenate(shares)

    def at(rows: np.ndarray) -> WrittenProfiles:
        """The profiles at `rows` (sessions, samples)."""
        taken = profiles.take(rows.ravel())
        num_tokens = np.array([len(tokens) for tokens in taken.tokens])
        return WrittenProfiles(taken.texts, num_tokens, taken.finished, copied[rows.ravel()], rows.shape[1])

    rows = np.arange(len(profiles)).reshape(len(sessions), num_profiles)
    return ProfileSets(at(rows[:, :1]), at(rows[:, 1:]) if num_samples else None)
