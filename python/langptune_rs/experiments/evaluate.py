"""The comparison at the end of a run: every session of a split once, before and after training."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from langptune_rs.baselines.method import Method, ScoredSessions
from langptune_rs.baselines.registry import methods_of_run, parts_of_run
from langptune_rs.baselines.run_models import RunModels, RunProfiles
from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.data.store.tables import write_parquet
from langptune_rs.distributed.collectives import rank
from langptune_rs.errors import RunError
from langptune_rs.evaluation import Result
from langptune_rs.evaluation.summary import metric_names, score_sessions, summarize
from langptune_rs.experiments.comparisons import compare_methods
from langptune_rs.experiments.machine import versions
from langptune_rs.files import write_atomically, write_text
from langptune_rs.models.memory import keep_freed_memory
from langptune_rs.progress import progress as show_progress
from langptune_rs.rollout.profile_sets import Bar, ProfileSets, WrittenProfiles, write_profile_sets
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.model_card import write_model_cards
from langptune_rs.runs.origin import read_origin
from langptune_rs.runs.results import (
    BASELINE,
    TABLES,
    TEST,
    per_user_path,
    profiles_path,
    read_profiles,
    results_path,
)
from langptune_rs.runs.trained import TrainedRun

Rankings = dict[str, ScoredSessions]
"""How each method ranks the sessions."""
Scores = dict[str, Result]
"""The metrics of each method, for every session."""


def evaluate_run(
    run: Path,
    *,
    split: str = TEST,
    max_sessions: int | None = None,
    progress: bool = True,
    initial_from: Path | None = None,
) -> dict[str, Any]:
    """Compare the trained models with the untrained ones and with the baselines, on every session of a split.

    Writes the split's results, per-user scores and profiles into `run`; on the test split also both model cards.
    With several processes each writes the profiles of its share of the sessions, and rank 0 does the rest.

    At most `max_sessions` sessions are drawn, by default the recipe's `evaluation.max_sessions`. Those of a smaller
    number are among those of a larger one.

    The untrained policy writes the same profiles for every run of one recipe and seed, so that they can be taken from
    `initial_from`, a run that has been evaluated on the same sessions.

    Returns:
        The content of results.json, or an empty dictionary on ranks other than 0. "methods" has one greedy profile per
        session and "sampled" has `evaluation.samples` of them at the recipe's temperature. If both models were
        trained, "parts" has the trained embedder on the initial policy's profiles ("contrastive") and the trained
        policy's profiles for the initial embedder ("rlso"), and "sampled_parts" has both with sampled profiles.
        "comparisons" has the rows of `compare_methods`.

    Raises:
        RunError: when `run` is no run or has not finished training, and when the untrained policy of `initial_from`
            wrote other profiles, with what differs.
        DataError: when the data set has no session in `split`.
    """
    started = time.monotonic()
    keep_freed_memory()
    trained_run = TrainedRun.open(run)
    run, config, dataset = trained_run.folder, trained_run.config, trained_run.dataset
    limit = config.evaluation.max_sessions if max_sessions is None else max_sessions
    sessions = dataset.sessions.select(split).sample(limit, config.data.seed)
    bar = show_progress if progress else _no_progress

    initial = None if initial_from is None else read_initial_profiles(trained_run, sessions, initial_from, split)
    run_profiles = _write_profiles(trained_run, sessions, bar, initial)
    profiles = {BASELINE: run_profiles.initial, config.method: run_profiles.trained}
    if rank() > 0:
        return {}
    tables = _rank(RunModels(trained_run, run_profiles), sessions, bar)
    scores = {
        table: {name: score_sessions(*ranked, k=config.evaluation.k) for name, ranked in rankings.items()}
        for table, rankings in tables.items()
    }
    per_session = {table: {name: r.per_user for name, r in methods.items()} for table, methods in scores.items()}
    users = sessions.user_ids.to_list()

    results = {
        "split": split,
        "num_sessions": len(sessions),
        "split_size": dataset.sessions.splits.count(split),
        "num_items": len(dataset.catalog),
        **{table: _summarize(table, methods, scores, users) for table, methods in scores.items()},
        "comparisons": compare_methods(per_session, config.method, users),
        "profiles": {name: sets.greedy.statistics() for name, sets in profiles.items()},
        "sampled_profiles": {name: sets.sampled.statistics() for name, sets in profiles.items() if sets.sampled},
        "seconds": time.monotonic() - started,
        "config": _decisive_keys(config),
        "versions": versions(),
    }
    per_user = _per_user_frame(dataset, sessions, tables, scores, metric_names(config.evaluation.k))
    written = _profiles_frame(sessions, profiles)
    write_atomically(per_user_path(run, split), partial(write_parquet, per_user))
    write_atomically(profiles_path(run, split), partial(write_parquet, written))
    if split == TEST:
        write_model_cards(run, config, results, dataset.info)
    write_text(results_path(run, split), json.dumps(results, indent=2, allow_nan=False) + "\n")
    return results


def _write_profiles(run: TrainedRun, sessions: Sessions, bar: Bar, initial: ProfileSets | None) -> RunProfiles:
    """The profiles of the initial and of the trained policy. Only one policy is in memory at a time."""

    def write(name: str, *, trained: bool) -> ProfileSets:
        num_samples, seed = run.config.evaluation.samples, run.config.seed
        return write_profile_sets(
            run.writer(trained=trained), sessions, num_samples=num_samples, seed=seed, bar=bar, name=name
        )

    initial = initial or write(BASELINE, trained=False)
    return RunProfiles(initial, write(run.config.method, trained=True) if run.config.trains_policy else initial)


_WRITING = ("policy", "profile", "engine.precision", "evaluation.samples", "seed")
"""What of a recipe decides what the untrained policy writes for given sessions."""


def read_initial_profiles(run: TrainedRun, sessions: Sessions, other: Path, split: str) -> ProfileSets:
    """What the untrained policy of `run` would write for `sessions`, from the evaluation of the run `other`.

    Raises `RunError` when `other` has another policy, prompt, decoding, seed or data, or other sessions.
    """
    theirs, origin, own_origin = read_config(other), read_origin(other), read_origin(run.folder)
    differing = writes_unlike(theirs, run.config)
    if origin is None or own_origin is None or origin.data.content != own_origin.data.content:
        differing.append("data")
    written = read_profiles(other, split).filter(pl.col("policy") == BASELINE)
    wanted = {"greedy": sessions.session_ids, "sampled": sessions.session_ids.repeat(run.config.evaluation.samples)}
    sets = {decoding: written.filter(pl.col("decoding") == decoding) for decoding in wanted}
    if any(not np.array_equal(sets[decoding]["session_id"].to_numpy(), ids) for decoding, ids in wanted.items()):
        differing.append("sessions (see --sessions)")
    if differing:
        raise RunError(
            f"The untrained policy of {other} wrote other profiles than that of {run.folder} would: they differ in "
            f"{', '.join(differing)}. Evaluate {run.folder} without them."
        )

    def read(decoding: str, num_samples: int) -> WrittenProfiles:
        table = sets[decoding]
        tokens, finished, copied = (table[column].to_numpy() for column in ("tokens", "finished", "copied_share"))
        return WrittenProfiles(table["text"].to_list(), tokens, finished, copied, num_samples)

    num_samples = run.config.evaluation.samples
    return ProfileSets(read("greedy", 1), read("sampled", num_samples) if num_samples else None)


def writes_unlike(config: RunConfig, other: RunConfig) -> list[str]:
    """The sections and keys by which the untrained policies of two recipes write other profiles for a session."""
    return [key for key in _WRITING if _value(config, key) != _value(other, key)]


def _value(config: RunConfig, key: str) -> Any:
    """The value of a dotted key, or the section of that name."""
    value: Any = config
    for name in key.split("."):
        value = getattr(value, name)
    return value


@dataclass(frozen=True)
class _Row:
    """A row of a table: its method, and how to make it from the run's models."""

    table: str
    name: str
    method: type[Method]
    make: Callable[[RunModels], Method]


def _rows(config: RunConfig, has_samples: bool) -> list[_Row]:
    """The rows of every table, in the order of display."""
    methods = {method.name: method for method in methods_of_run(config)}
    parts = parts_of_run(config)
    greedy = [
        _Row(table, name, method, method.of_run)
        for table, rows in (("methods", methods), ("parts", parts))
        for name, method in rows.items()
    ]
    sampled = [
        _Row(table, name, method, partial(method.of_run, decoding="sampled"))
        for table, rows in (("sampled", methods), ("sampled_parts", parts))
        for name, method in rows.items()
        if has_samples and "sampled" in method.decodings
    ]
    return greedy + sampled


def _rank(models: RunModels, sessions: Sessions, bar: Bar) -> dict[str, Rankings]:
    """The rows of every table, histories excluded. They are sorted so that each embedder embeds the catalog once."""
    rows = _rows(models.run.config, models.profiles.initial.sampled is not None)
    ranked: dict[_Row, ScoredSessions] = {}
    with bar(len(rows), "ranking") as advance:
        for row in sorted(rows, key=lambda row: row.method.reads_with_trained):
            ranked[row] = row.make(models).score_targets(sessions)
            advance()
    return {table: {row.name: ranked[row] for row in rows if row.table == table} for table in TABLES}


def _summarize(table: str, methods: Scores, scores: dict[str, Scores], users: list[str]) -> dict[str, Any]:
    """A table compared with LangPTune-0 in the same decoding."""
    if not methods:
        return {}
    return summarize(methods, scores["sampled" if table.startswith("sampled") else "methods"][BASELINE], users)


def _per_user_frame(
    dataset: Dataset, sessions: Sessions, tables: dict[str, Rankings], scores: dict[str, Scores], metrics: list[str]
) -> pl.DataFrame:
    """One row for each table, method and session: the scores, and the ranks behind. A metric may be null."""
    nothing = pl.repeat(None, len(sessions), dtype=pl.Float64, eager=True)
    frames = [
        pl.DataFrame(
            {
                "table": table,
                "method": method,
                "session_id": sessions.session_ids,
                "user_id": sessions.user_ids.to_list(),
                "target": [dataset.catalog.item_ids[item] for item in sessions.targets],
                "ranks": ranked.ranks.tolist(),
                **{metric: scores[table][method].per_user.get(metric, nothing) for metric in metrics},
            }
        )
        for table, methods in tables.items()
        for method, ranked in methods.items()
    ]
    return pl.concat(frames)


def _profiles_frame(sessions: Sessions, profiles: dict[str, ProfileSets]) -> pl.DataFrame:
    """One row for each profile; `sample` counts the sampled ones of a session from 0."""
    frames = []
    for method, sets in profiles.items():
        for decoding, written in (("greedy", sets.greedy), ("sampled", sets.sampled)):
            if not written:
                continue
            frames.append(
                pl.DataFrame(
                    {
                        "policy": method,
                        "decoding": decoding,
                        "session_id": np.repeat(sessions.session_ids, written.num_samples),
                        "user_id": [user for user in sessions.user_ids for _ in range(written.num_samples)],
                        "sample": np.tile(np.arange(written.num_samples), len(sessions)),
                        "text": written.texts,
                        "tokens": written.num_tokens,
                        "finished": written.finished,
                        "copied_share": written.copied_shares,
                    }
                )
            )
    return pl.concat(frames)


def _decisive_keys(config: RunConfig) -> dict[str, Any]:
    """The keys that matter most to a reader of the results; config.toml has all."""
    return {
        "seed": config.seed,
        "method": config.method,
        "iterations": config.iterations,
        "data": config.data.source,
        "policy": config.policy.model,
        "embedder": config.embedder.model,
        "max_tokens": config.profile.max_tokens,
        "temperature": config.profile.temperature,
        "samples": config.evaluation.samples,
        "k": config.evaluation.k,
    }


def _no_progress(total: int, description: str) -> AbstractContextManager[Callable[..., None]]:
    return nullcontext(lambda n=1, note="": None)
