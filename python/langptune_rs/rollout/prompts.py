"""The prompts of sessions, as a recipe words them."""

from __future__ import annotations

from langptune_rs.config.profile import ProfileConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.models.policy import Policy


def encode_prompts(policy: Policy, dataset: Dataset, sessions: Sessions, config: ProfileConfig) -> list[list[int]]:
    """Token ids of the prompt of every session, in order."""
    return [policy.encode_prompt(dataset.prompt(sessions, i, config)) for i in range(len(sessions))]
