"""Runs of one recipe that differ only in their seed, compared with the other methods as one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from langptune_rs.config import RunConfig
from langptune_rs.data.store.content import PARTS as DATA_PARTS
from langptune_rs.errors import InputError, RunError
from langptune_rs.experiments.comparisons import Scores, compare_methods, scores_of
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.origin import Data, read_origin
from langptune_rs.runs.results import TABLES, TEST, per_user_path, read_results, read_scores, unlike_results

FREE_SECTIONS = ("checkpoint", "logging")
"""Sections of a recipe that change no number."""


def compare_seeds(runs: Sequence[Path], split: str = TEST) -> dict[str, Any]:
    """The comparisons of `compare_methods` over runs of one recipe that differ only in their seed.

    A session's scores are averaged over the runs first. Its runs are no more sessions than one is: with S seeds a test
    over S times as many sessions would find differences that are none. Interval and p say what another draw of users
    would change; they hold for these seeds. "seed_sd" says what other seeds would change.

    Returns:
        {"split", "num_sessions", "num_users", "runs": [{"run", "seed"}], "comparisons"}. A row of "comparisons" also
        has "by_seed", the difference of each run, and "seed_sd", their standard deviation, None for a single run.

    Raises:
        RunError: for runs of different recipes, data or sessions, with what differs; for the same seed twice; for a run
            that has not been evaluated on `split`, or whose files are damaged.
    """
    evaluated = _of_one_recipe(runs, split)
    users = evaluated[0].sessions["user_id"].to_list()
    rows = compare_methods(_averaged([run.tables for run in evaluated]), evaluated[0].config.method, users)
    return {
        "split": split,
        "num_sessions": len(users),
        "num_users": len(set(users)),
        "runs": [{"run": str(run.run), "seed": run.config.seed} for run in evaluated],
        "comparisons": [{**row, **_between_seeds(row, evaluated)} for row in rows],
    }


def average_seeds(runs: Sequence[Path], split: str = TEST) -> tuple[pl.DataFrame, dict[str, Scores]]:
    """The sessions of runs that differ only in their seed, and every score averaged over the runs.

    Returns:
        A frame with session_id, user_id and target of each session, sorted by session_id, and {table: {method: {metric:
        (n_sessions,)}}} with the tables of results.json.

    Raises:
        RunError: see `compare_seeds`.
    """
    evaluated = _of_one_recipe(runs, split)
    return evaluated[0].sessions, _averaged([run.tables for run in evaluated])


def _of_one_recipe(runs: Sequence[Path], split: str) -> list[_Evaluated]:
    """The runs with their scores. Raises the errors of `compare_seeds`."""
    evaluated = [_Evaluated.open(Path(run), split) for run in runs]
    first, *others = evaluated
    for other in others:
        if fault := next(_differences(first, other), None):
            raise RunError(
                f"{other.run} and {first.run} are no runs of one recipe that differ only in their seed: {fault}"
            )
    if same := next(_same_seeds(evaluated), None):
        raise RunError(same)
    return evaluated


def check_seeds(seeds: Sequence[int]) -> None:
    """Raise `InputError` for no seeds, one below 0, or one twice."""
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise InputError(f"seeds are {list(seeds)}; give at least one, none below 0 and none twice")


def check_no_seed(overrides: Sequence[str]) -> None:
    """Raise `InputError` for a seed among the overrides of an experiment, which gives each of its runs its own."""
    if given := next((text for text in overrides if text.partition("=")[0].strip() == "seed"), None):
        raise InputError(f"The override {given!r}: --seeds says which seeds there are.")


@dataclass(frozen=True)
class _Evaluated:
    """A run and its scores on a split, sessions by their ids."""

    run: Path
    config: RunConfig
    data: Data | None
    sessions: pl.DataFrame
    """session_id, user_id and target of each session."""
    tables: Mapping[str, Scores]

    @classmethod
    def open(cls, run: Path, split: str) -> _Evaluated:
        config, results, per_user = read_config(run), read_results(run, split), read_scores(run, split)
        origin = read_origin(run)
        tables: dict[str, dict[str, dict[str, np.ndarray]]] = {table: {} for table in TABLES}
        sessions: pl.DataFrame | None = None
        for table, methods in ((table, results[table]) for table in TABLES):
            for method, metrics in methods.items():
                rows = per_user.filter(pl.col("table") == table, pl.col("method") == method).sort("session_id")
                own = rows.select("session_id", "user_id", "target")
                sessions = own if sessions is None else sessions
                there = [metric for metric, numbers in metrics.items() if numbers is not None]
                lacks = any(rows[metric].null_count() for metric in there)
                if lacks or len(own) != results["num_sessions"] or not own.equals(sessions):
                    what = f"has other sessions of {table}.{method} than results.json"
                    raise unlike_results(per_user_path(run, split), what, run, split)
                tables[table][method] = {metric: rows[metric].to_numpy() for metric in there}
        assert sessions is not None, "results have methods"
        return cls(run, config, origin.data if origin else None, sessions, tables)


def _averaged(runs: Sequence[Mapping[str, Scores]]) -> dict[str, Scores]:
    """The mean of every score over the runs."""
    return {
        table: {
            method: {metric: np.mean([run[table][method][metric] for run in runs], axis=0) for metric in scores}
            for method, scores in methods.items()
        }
        for table, methods in runs[0].items()
    }


def _between_seeds(row: Mapping[str, Any], runs: Sequence[_Evaluated]) -> dict[str, Any]:
    """The difference of a comparison in each run, and how far the runs are apart."""
    differences = []
    for run in runs:
        scores = scores_of(run.tables, row["decoding"])
        difference = scores[row["method"]][row["metric"]] - scores[row["other"]][row["metric"]]
        differences.append(float(difference.mean()))
    return {"by_seed": differences, "seed_sd": float(np.std(differences, ddof=1)) if len(runs) > 1 else None}


def _same_seeds(runs: Sequence[_Evaluated]) -> Iterator[str]:
    """What is wrong with the seeds of runs."""
    seen: dict[int, Path] = {}
    for run in runs:
        if run.config.seed in seen:
            yield (
                f"{seen[run.config.seed]} and {run.run} both have the seed {run.config.seed}, so they are one run. "
                "Train one with another: `--set seed=N`."
            )
        seen[run.config.seed] = run.run


def _differences(a: _Evaluated, b: _Evaluated) -> Iterator[str]:
    """What two runs differ in beside their seed, as sentences."""
    same_data = a.data and b.data and a.data.content == b.data.content
    if a.data and b.data and not same_data:
        parts = [words for part, words in DATA_PARTS.items() if a.data.content.get(part) != b.data.content.get(part)]
        yield f"their data differ in {', '.join(parts)}."
    ours, theirs = deciding_keys(a.config), deciding_keys(b.config)
    keys = [key for key in ours if ours[key] != theirs[key] and not (key == "data.source" and same_data)]
    if keys:
        yield " ".join(f"{key} is {theirs[key]!r} and {ours[key]!r}." for key in keys)
    if not a.sessions.equals(b.sessions):
        shared = len(a.sessions.join(b.sessions, on=a.sessions.columns))
        yield (
            f"of the {len(b.sessions)} and {len(a.sessions)} sessions they were evaluated on, {shared} are the same. "
            "Evaluate both again with `langptune evaluate`."
        )
    for table in TABLES:
        had, has = ({m: list(scores) for m, scores in run.tables[table].items()} for run in (a, b))
        if had != has:
            yield f"their results hold other {table}. Evaluate both again with `langptune evaluate`."


def deciding_keys(config: RunConfig) -> dict[str, Any]:
    """Every key of a recipe that decides a number, but the seed, such as "rlso.eta"."""
    values: dict[str, Any] = {}
    for name, value in config.model_dump(exclude={"seed", *FREE_SECTIONS}).items():
        values |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return values
