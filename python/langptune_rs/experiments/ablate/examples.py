"""What the policies of an ablation write for the same users, side by side (appendix D of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from langptune_rs.data import Dataset
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.results import BASELINE, read_per_user, read_profiles

RULE = (
    "Not chosen by hand: sessions are sorted by the rank that the user's next item has with the recipe's own value, "
    "and those at the first quarter, the middle and the third quarter are taken. Greedy profiles of the first seed."
)


def examples_of(runs: Mapping[str, Path], own: str, dataset: Dataset, split: str) -> list[dict[str, Any]]:
    """The sessions of `RULE`, each with the profile that every value has for it, and the initial policy's before them.

    Without runs there are none. An example is {"user", "history": [title], "target": title, "profiles": [{"label",
    "text", "rank", "tokens", "finished"}]}; `rank` is that of the target among the items outside the history.

    Args:
        runs: an evaluated run of each value by its label, all of one seed.
        own: the label of the recipe's own value, whose run has the initial policy's profiles.
        dataset: the data of the runs.
        split: of the sessions.

    Raises:
        RunError: for a file of a run that is missing or damaged.
    """
    if not runs:
        return []
    written = {BASELINE: _written(runs[own], split, BASELINE)}
    written |= {label: _written(run, split, read_config(run).method) for label, run in runs.items()}
    sorted_ids = written[own].sort("rank", "session_id")["session_id"].to_list()
    places = sorted({round(quarter * (len(sorted_ids) - 1) / 4) for quarter in (1, 2, 3)})
    return [_example(sorted_ids[place], written, dataset) for place in places]


def _written(run: Path, split: str, method: str) -> pl.DataFrame:
    """session_id, text, tokens, finished and rank of the greedy profile that a policy has for each session."""
    per_user = read_per_user(run, split).filter(pl.col("table") == "methods", pl.col("method") == method)
    ranks = per_user.select("session_id", rank=pl.col("ranks").list.first())
    profiles = read_profiles(run, split).filter(pl.col("decoding") == "greedy")
    there = method if method in profiles["policy"] else BASELINE
    return profiles.filter(pl.col("policy") == there).join(ranks, on="session_id")


def _example(session_id: int, written: Mapping[str, pl.DataFrame], dataset: Dataset) -> dict[str, Any]:
    session = dataset.sessions.take(np.flatnonzero(dataset.sessions.session_ids == session_id))
    titles = dataset.catalog.titles
    profiles = []
    for label, table in written.items():
        profile = table.row(by_predicate=pl.col("session_id") == session_id, named=True)
        profiles.append({"label": label, **{key: profile[key] for key in ("text", "rank", "tokens", "finished")}})
    return {
        "user": session.user_ids[0],
        "history": [titles[item] for item in session.histories[0]],
        "target": titles[session.targets[0]],
        "profiles": profiles,
    }
