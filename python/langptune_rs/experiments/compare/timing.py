"""How long a method of a run takes for one recommendation: it writes a profile, embeds it and ranks the catalog."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import polars as pl

from langptune_rs.baselines.method import Decoding
from langptune_rs.data import Dataset, Sessions
from langptune_rs.errors import DataError, ModelError, RunError
from langptune_rs.experiments.compare.guards import WAY_OUT, identity_of, method_of_run
from langptune_rs.experiments.compare.rows import Compared
from langptune_rs.experiments.compare.task import Ranked
from langptune_rs.experiments.machine import machine
from langptune_rs.files import write_text
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.runs.trained import TrainedRun
from langptune_rs.seeds import evaluation_seed

FOLDER = "milliseconds"
"""Where an experiment keeps what was measured, within its own folder."""
SESSIONS = 64
"""Sessions that are timed, all at once."""
WARM_UP = 2
"""Sessions before them, whose time is not measured: the first call of a model lays out its weights."""


def timed_rows(
    rows: Sequence[Compared], sessions: pl.DataFrame, ranked: Ranked, dataset: Dataset, folder: Path
) -> list[Compared]:
    """The rows of `rows_of_runs` with the milliseconds of a recommendation, measured with the first run of each.

    The first `SESSIONS` of the `sessions` that are compared on are taken. What was measured is kept in `folder`, and
    measured again when the run has other results, and on another machine. Raises `RunError` when a model of a run
    cannot be loaded.
    """
    timed, here = [], hashlib.sha256(machine().encode()).hexdigest()[:8]
    for row in rows:
        run, name = Path(row.settings["runs"][0]), row.method
        assert row.decoding is not None, "methods of runs write profiles"
        identity = identity_of(TrainedRun.open(run, ()), name, ranked)
        file = folder / f"{name.lower()}-{row.decoding}-{identity}-{here}.json"
        if not file.is_file():
            print(f"Time of a recommendation: {row.name}", file=sys.stderr, flush=True)
            try:
                found = milliseconds_of(run, name, row.decoding, _first(sessions, ranked, dataset), dataset)
            except (RunError, ModelError, DataError) as error:
                raise RunError(f"How long {row.name} of {run} takes cannot be measured: {error} {WAY_OUT}") from error
            folder.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps({"milliseconds": found}) + "\n")
        timed.append(replace(row, costs={**row.costs, "milliseconds": _read(file)}))
    return timed


def milliseconds_of(folder: Path, name: str, decoding: Decoding, sessions: Sessions, dataset: Dataset) -> float:
    """The milliseconds for each of the `sessions`, ranked together by the method of that name of the run in `folder`.

    Loading the models and embedding the catalog are not in it. One model is in memory at a time. Raises `RunError` for
    a model that is not there.
    """
    run = TrainedRun.open(folder, ())
    run.dataset = dataset
    method, few = method_of_run(name), sessions.take(np.arange(min(WARM_UP, len(sessions))))

    write = partial(_profiles, run.writer(trained=method.writes_with_trained), decoding=decoding, seed=run.config.seed)
    profiles = write(few)
    started = time.perf_counter()
    texts = write(sessions)
    seconds = time.perf_counter() - started

    del write
    rank = partial(_rank, run.recommender(trained=method.reads_with_trained))
    rank(few, profiles)
    started = time.perf_counter()
    rank(sessions, texts)
    return 1000 * (seconds + time.perf_counter() - started) / len(sessions)


def _profiles(writer: ProfileWriter, sessions: Sessions, *, decoding: Decoding, seed: int) -> list[str]:
    """One profile for each session."""
    is_greedy = decoding == "greedy"
    seeds = [evaluation_seed(seed, int(session)) for session in sessions.session_ids]
    return writer.write(writer.prompts(sessions), greedy=is_greedy, num_samples=int(not is_greedy), seeds=seeds).texts


def _rank(recommender: Recommender, sessions: Sessions, profiles: Sequence[str]) -> None:
    embeddings = recommender.embedder.encode_profiles(profiles)
    recommender.index.rank(embeddings, sessions.targets, exclude=sessions.histories)


def _first(sessions: pl.DataFrame, ranked: Ranked, dataset: Dataset) -> Sessions:
    """The first of the sessions that are compared on."""
    of_split = dataset.sessions.select(ranked.split)
    places = {session: place for place, session in enumerate(of_split.session_ids.tolist())}
    return of_split.take([places[session] for session in sessions["session_id"][:SESSIONS].to_list()])


def _read(file: Path) -> float:
    """What a kept file says. Raises `RunError` for a damaged one."""
    try:
        return float(json.loads(file.read_text(encoding="utf-8"))["milliseconds"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{file} is damaged. Remove that file, and it is made again.") from error
