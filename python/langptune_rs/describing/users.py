"""A text for each session, by which its user ranks the items: the titles of the history, or a profile of a run."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.results import profiles_path, read_profiles, unlike_results

TITLES = "titles of histories"
"""What stands for the users without a run."""


def users_with_texts(config: RunConfig, dataset: Dataset, split: str, limit: int | None) -> tuple[Sessions, list[str]]:
    """Sessions of a split with a text for each user: `limit` of them at most, drawn with the seed of the data.

    With `description.users_of` these are the sessions for which that run's trained policy has written greedy profiles
    in its evaluation, and the texts are these profiles.

    Raises `RunError` for a run that has not been evaluated on the split.
    """
    sessions = dataset.sessions.select(split)
    if config.description.users_of is None:
        sessions = sessions.sample(limit, config.data.seed)
        return sessions, [dataset.history_titles(sessions, row) for row in range(len(sessions))]
    profiles = _profiles(Path(config.description.users_of), split)
    there = [row for row, session in enumerate(sessions.session_ids.tolist()) if session in profiles]
    sessions = sessions.take(there).sample(limit, config.data.seed)
    return sessions, [profiles[session] for session in sessions.session_ids.tolist()]


def _profiles(run: Path, split: str) -> dict[int, str]:
    """The greedy profiles of a run's trained policy, by session id."""
    method = read_config(run).method
    written = read_profiles(run, split).filter(pl.col("policy") == method, pl.col("decoding") == "greedy")
    if written.is_empty():
        raise unlike_results(profiles_path(run, split), f"has no profiles of {method}", run, split)
    return dict(zip(written["session_id"].to_list(), written["text"].to_list(), strict=True))
