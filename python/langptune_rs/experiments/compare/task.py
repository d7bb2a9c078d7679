"""One method, fitted with one seed and one setting, and the sessions of a split ranked by it, in a folder of its own.

The folder is that of a run in small: `task.json` says what it is of, `results.json` what came out, `per_user.parquet`
the ranks and scores of every session, `model/` what `Method.save` wrote. `results.json` is written last: a task with
that file is done, any other is begun again, where its method left off.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from langptune_rs.baselines.method import Method, ScoredSessions
from langptune_rs.baselines.registry import find_method
from langptune_rs.data import Dataset, Sessions, load
from langptune_rs.data.store.tables import read_whole_parquet, write_parquet
from langptune_rs.errors import LangptuneError, ModelError, RunError
from langptune_rs.evaluation.summary import score_sessions
from langptune_rs.experiments.machine import machine, versions
from langptune_rs.files import write_atomically, write_text
from langptune_rs.models.memory import keep_freed_memory
from langptune_rs.peak_memory import peak_memory, start_of_peak

TASK, RESULTS, PER_USER = "task.json", "results.json", "per_user.parquet"
MODEL, CHECKPOINT, FAILURE = "model", "checkpoint.pt", "failure.txt"
REFUSED, NO_ROOM = 2, 3
"""The exit codes of a process whose method refused its data or settings, and of one that found a disk full."""
_OF_A_FULL_DISK = re.compile(r"No space left|Disk quota exceeded|requested and \d+ written|iostream error")
"""Words of what is raised where a file cannot be written: the system's, numpy's and torch's."""


@dataclass(frozen=True)
class Ranked:
    """The sessions of a split that methods rank: which they are, and the cutoff of their metrics."""

    data: Path
    """The folder of the prepared data set."""
    content: dict[str, str]
    """A hash of each part of the data set: see `Dataset.content`."""
    split: str
    limit: int | None
    """Sessions at most, drawn with the seed of the data."""
    data_seed: int
    k: int
    train_share: float = 1.0
    """The share of the train sessions that methods learn from, drawn with the seed of each fit, as in runs."""

    def sessions(self, of: Sessions) -> Sessions:
        """The sessions to rank among all sessions of the data set."""
        return of.select(self.split).sample(self.limit, self.data_seed)

    def identity(self) -> dict[str, Any]:
        """What must be equal for two methods to have learned from the same and ranked the same."""
        share = {} if self.train_share == 1 else {"train_share": self.train_share}
        data = {"data": self.content, "split": self.split, "limit": self.limit, "seed": self.data_seed, "k": self.k}
        return data | share


@dataclass(frozen=True)
class Task:
    """A method with its settings and its seed, what it ranks, and the folder of all of that."""

    folder: Path
    method: str
    settings: dict[str, Any]
    """The fields of the method's Config."""
    seed: int
    ranked: Ranked
    fitted_in: Path | None = None
    """The folder of another task that is done and differs in what is ranked alone: its model ranks here too."""

    def identity(self) -> dict[str, Any]:
        """What the task is of. A folder with another identity is not this task's."""
        return {
            "method": self.method,
            "version": find_method(self.method).version,
            "settings": self.settings,
            "seed": self.seed,
            "ranked": self.ranked.identity(),
        }

    @property
    def is_done(self) -> bool:
        """Whether its results are there."""
        return (self.folder / RESULTS).is_file()


@dataclass(frozen=True)
class Outcome:
    """What a task has shown."""

    task: Task
    results: dict[str, Any]
    """"fit_seconds" (None after an interruption), "rank_seconds", "peak_memory" in bytes, "num_sessions",
    "mean" by metric, "unfinished" (see `Method.unfinished`), and "made": the "machine" and the "versions" of the
    packages of the fit. An earlier version wrote neither of these two."""
    sessions: pl.DataFrame
    """session_id, user_id and target of each session, in the order of the split."""
    scores: dict[str, NDArray[np.float64]]
    """{metric: (n_sessions,)}"""


@dataclass(frozen=True)
class Failure:
    """A task that did not end."""

    task: Task
    reason: str
    is_refusal: bool = False
    """The method refused its data or settings, as it will again; anything else may work the next time."""


class MethodFailedError(RunError):
    """A method that has no row this time."""


def run_task(task: Task) -> Outcome | Failure:
    """The outcome of a task: read if it is there, else computed in a process of its own, so that its memory is its own.

    What fails there, or is killed there, is a `Failure`; it is tried again the next time. Raises `RunError` for a
    folder of another task and for a full disk, where no other task could end either, and what interrupts this process.
    """
    check_folder(task)
    if not task.is_done:
        write_text(task.folder / TASK, json.dumps(task.identity(), indent=2) + "\n")
        (task.folder / FAILURE).unlink(missing_ok=True)
        process = _CONTEXT.Process(target=_work, args=(task,), name=f"{task.method} {task.seed}")
        _run(process)
        if not task.is_done:
            reason = _reason(task.folder, process.exitcode)
            if process.exitcode == NO_ROOM:
                raise RunError(_no_room(task.folder, reason))
            return Failure(task, reason, process.exitcode == REFUSED)
    return read_outcome(task)


def check_folder(task: Task) -> None:
    """Raise `RunError` where the folder is of another method, setting, seed, data set or split, with what differs."""
    path = task.folder / TASK
    if not path.is_file():
        return
    wanted = json.loads(json.dumps(task.identity()))
    try:
        found = {"version": 1, **json.loads(path.read_text(encoding="utf-8"))}
        was, asked = flat({key: found[key] for key in wanted}), flat(wanted)
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is damaged. Remove {task.folder}, and it is made again.") from error
    differing = [key for key in was | asked if was.get(key) != asked.get(key)]
    if differing:
        raise RunError(
            f"{task.folder} holds {task.method} with another {' and '.join(differing)}: "
            + "; ".join(f"{key} is {_short(was.get(key))}, not {_short(asked.get(key))}" for key in differing)
            + ". Give another --output, or remove that folder."
        )


def flat(values: Mapping[str, Any], within: str = "") -> dict[str, Any]:
    """The values of a nested mapping by their keys, those of inner ones behind a dot."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{within}{key}.") if isinstance(value, Mapping) else {within + key: value}
    return found


def read_outcome(task: Task) -> Outcome:
    """What the files of a task that is done hold. Raises `RunError` for a damaged one."""
    path = task.folder / PER_USER
    try:
        results = json.loads((task.folder / RESULTS).read_text(encoding="utf-8"))
        table = read_whole_parquet(path)
        scores = {metric: table[metric].to_numpy() for metric in results["mean"]}
        for metric, mean in results["mean"].items():
            if not math.isclose(float(scores[metric].mean()), mean, rel_tol=1e-9, abs_tol=1e-12):
                raise RunError(f"{path} has another mean of {metric} than {RESULTS}.")
        return Outcome(task, results, table.select("session_id", "user_id", "target"), scores)
    except (LangptuneError, OSError, ValueError, KeyError, pl.exceptions.PolarsError) as error:
        raise RunError(f"{task.folder} is damaged: {error} Remove that folder, and it is made again.") from error


def _work(task: Task) -> None:
    """Fit, rank and write, in a process of its own; why it failed is left in a file."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is told too, and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    keep_freed_memory()
    try:
        _fit_and_rank(task)
    except Exception as error:
        known, full = isinstance(error, LangptuneError), _is_of_full_disk(error)
        said = str(error) if known else "".join(traceback.format_exception_only(error)).strip()
        if not known and not full:
            traceback.print_exc()
        with suppress(OSError):
            write_text(task.folder / FAILURE, said + "\n")
        refused = known and not isinstance(error, ModelError)  # a model that is not read now may be the next time
        sys.exit(NO_ROOM if full else REFUSED if refused else 1)


def _is_of_full_disk(error: BaseException) -> bool:
    """Whether an error, or one that it came from, is that of a disk without room."""
    chain = [error]
    while before := chain[-1].__cause__ or chain[-1].__context__:
        chain.append(before)
    return any(
        (isinstance(link, OSError) and link.errno in (errno.ENOSPC, errno.EDQUOT)) or _OF_A_FULL_DISK.search(str(link))
        for link in chain
    )


def _no_room(folder: Path, reason: str) -> str:
    """What is said of a full disk, in one line."""
    free = shutil.disk_usage(folder).free
    return (
        f"{folder} could not be written: {' '.join(reason.split())}. With the unfinished file deleted, its disk has "
        f"{free / 1e6:,.1f} MB free. Make room and run the same command again: what is finished is kept."
    )


def _end_with_parent() -> None:
    """End this process at once when its parent has ended, however: the next one works in the same folder."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _fit_and_rank(task: Task) -> None:
    dataset = load(task.ranked.data).with_train_share(task.ranked.train_share, task.seed)
    sessions = task.ranked.sessions(dataset.sessions)
    start_of_peak()
    method, of_fit = (_opened if task.fitted_in else _fitted)(task, dataset)
    started = time.perf_counter()
    ranked = method.score_targets(sessions)
    done = time.perf_counter()
    scores = score_sessions(*ranked, k=task.ranked.k)
    _save(task, method, per_session(sessions, dataset.catalog.item_ids, ranked, scores.per_user))
    results = {
        **of_fit,
        "rank_seconds": done - started,
        "peak_memory": max(of_fit["peak_memory"], peak_memory()),
        "num_sessions": len(sessions),
        "mean": scores.mean,
    }
    write_text(task.folder / RESULTS, json.dumps(results, indent=2, allow_nan=False) + "\n")
    (task.folder / CHECKPOINT).unlink(missing_ok=True)


def _fitted(task: Task, dataset: Dataset) -> tuple[Method, dict[str, Any]]:
    """The method, and what `Outcome.results` says of its fit."""
    method = find_method(task.method)()
    method.check_data(dataset)
    settings = method.Config.model_validate(task.settings)
    goes_on = (task.folder / CHECKPOINT).is_file()
    started = time.perf_counter()
    method.fit(dataset, settings, task.seed, task.folder / CHECKPOINT)
    return method, {
        "fit_seconds": None if goes_on else time.perf_counter() - started,
        "peak_memory": 0,  # that of the process is taken after ranking
        "unfinished": method.unfinished,
        "made": {"machine": machine(), "versions": versions()},
    }


def _opened(task: Task, dataset: Dataset) -> tuple[Method, dict[str, Any]]:
    """The same for the model of `task.fitted_in`, with what is known of its fit."""
    assert task.fitted_in is not None
    results = json.loads((task.fitted_in / RESULTS).read_text(encoding="utf-8"))
    method = find_method(task.method).open(task.fitted_in / MODEL, dataset)
    kept = ("fit_seconds", "peak_memory", "unfinished", "made")
    return method, {key: results[key] for key in kept if key in results}


def per_session(
    sessions: Sessions, item_ids: Any, ranked: ScoredSessions, scores: dict[str, NDArray[np.float64]]
) -> pl.DataFrame:
    """One row for each session: who, what came next, its ranks and its scores."""
    return pl.DataFrame(
        {
            "session_id": sessions.session_ids,
            "user_id": sessions.user_ids.to_list(),
            "target": [item_ids[target] for target in sessions.targets],
            "ranks": ranked.ranks.tolist(),
            **scores,
        }
    )


def _save(task: Task, method: Any, table: pl.DataFrame) -> None:
    unfinished = task.folder / f".{MODEL}.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        method.save(unfinished)
        shutil.rmtree(task.folder / MODEL, ignore_errors=True)
        unfinished.rename(task.folder / MODEL)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)  # a full disk has room again
    write_atomically(task.folder / PER_USER, partial(write_parquet, table))


def _run(process: BaseProcess) -> None:
    """Start a process and wait for its end, and end it if this one is told to end."""
    _prepare_forks()
    try:
        process.start()
        process.join()
    finally:
        if process.pid is not None and process.is_alive():
            process.kill()
            process.join()


def _reason(folder: Path, exit_code: int | None) -> str:
    """Why a task failed."""
    with suppress(OSError):
        return (folder / FAILURE).read_text(encoding="utf-8").strip()
    if exit_code is not None and exit_code < 0:
        return f"its process was ended by {signal.Signals(-exit_code).name}, as when memory runs out"
    if exit_code == NO_ROOM:
        return "No space left on device"
    return f"its process ended with exit code {exit_code} and could not say why"


def _short(value: Any) -> str:
    """A value for a message; a hash of data, and what else is long, as a short hash."""
    text = "not set" if value is None else json.dumps(value)
    return text if len(text) <= 60 else f"…{hashlib.sha256(text.encode()).hexdigest()[:8]}"


_HAS_FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()
_CONTEXT: Any = multiprocessing.get_context("forkserver" if _HAS_FORKSERVER else "spawn")


def _prepare_forks() -> None:
    """Start, once, the process that imports the libraries and from which tasks are forked.

    Ctrl-C reaches every process of a terminal. Only the parent answers it: that process is started with the signal
    blocked, so that even its interpreter is not interrupted, and its forks inherit this.
    """
    if not _HAS_FORKSERVER:
        return
    from multiprocessing import forkserver, resource_tracker

    resource_tracker.ensure_running()  # before the signal is blocked: it unblocks it
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.set_forkserver_preload([__name__])
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
