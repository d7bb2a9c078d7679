"""Profiles for a whole data set, in a parquet file that is assembled from parts.

A part holds the profiles of `SESSIONS_PER_PART` consecutive sessions. The parts are the same for any number of
processes, and a killed job goes on with the parts that are missing. Once all are there they become the row groups of
one file. Only one part is in memory at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from langptune_rs.data import Sessions
from langptune_rs.data.store.tables import open_parquet
from langptune_rs.distributed.failures import WRITING, explained
from langptune_rs.distributed.launch import check_gpus, run_processes
from langptune_rs.distributed.lifeline import end_with_parent
from langptune_rs.errors import LangptuneError, RunError
from langptune_rs.files import file_hash, locked, write_atomically, write_text
from langptune_rs.models.memory import keep_freed_memory
from langptune_rs.progress import progress
from langptune_rs.rollout.sampling import OnBatch
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.runs.trained import TrainedRun
from langptune_rs.seeds import evaluation_seed

ALL = "all"
SESSIONS_PER_PART = 256
"""A kill loses at most one part. A part is a row group of the file, and large enough to batch prompts by length."""
SCHEMA = pa.schema(
    {
        "session_id": pa.int64(),
        "user_id": pa.string(),
        "split": pa.string(),
        "sample": pa.int32(),
        "profile": pa.string(),
        "num_tokens": pa.int32(),
        "finished": pa.bool_(),
    }
)
_MADE_OF = b"langptune.made_of"
"""The key in the file's metadata for everything that decides its content."""
_JOB, _LOCK, _WHOLE = "job.json", ".lock", "whole.parquet"


def profile_sessions(run: Path, out: Path, *, split: str = ALL, samples: int = 0, num_processes: int = 1) -> int:
    """Write the profiles of every session of a split with a run's trained policy, and return the processes' exit code.

    `out` gets one row for each profile, sessions in the data set's order. Sample 0 is decoded greedily; samples 1 to
    `samples` are sampled at the recipe's temperature, the same as in `evaluate_run`. The call goes on with what an
    earlier one with the same arguments left undone; a file that is complete stays as it is.

    Raises:
        RunError: when `run` has no trained policy, `out` or the parts beside it come from something else, another
            process is writing them, or they cannot be written.
        DataError: when the data set has no session in `split`.
        ModelError: when a prompt and `profile.max_tokens` do not fit the model's context.
        ConfigError: when there are GPUs, but fewer than `num_processes`.
    """
    check_gpus(num_processes, torch.cuda.device_count())
    job = Job.open(run, split, samples)
    if _is_complete(out, job):
        shutil.rmtree(_parts_folder(out), ignore_errors=True)
        return 0
    with opened_parts(out, job.made_of, job.made_of_before) as parts:
        if num_processes == 1:
            write_share(job, parts, 0, 1)
        else:
            command = [sys.executable, "-m", "langptune_rs.experiments.profiles", str(run), str(parts)]
            code = run_processes([*command, "--split", split, "--samples", str(samples)], num_processes)
            if code:
                return code
        _join(job, parts, out)
    return 0


@dataclass(frozen=True)
class Job:
    """The sessions to profile, and everything that decides what is written about them."""

    run: TrainedRun
    sessions: Sessions
    split: str
    samples: int

    @classmethod
    def open(cls, folder: Path, split: str, samples: int) -> Job:
        """The job for the run in `folder`. Raises what `profile_sessions` raises about the run and the split."""
        run = TrainedRun.open(folder, ["policy"])
        sessions = run.dataset.sessions if split == ALL else run.dataset.sessions.select(split)
        return cls(run, sessions, split, samples)

    @property
    def num_profiles(self) -> int:
        """Profiles of each session."""
        return 1 + self.samples

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """Everything that decides the content, as JSON values: options, recipe keys, hashes of data and policy."""
        weights = sorted(
            path for path in (self.run.folder / "policy").iterdir() if path.is_file() and path.suffix != ".md"
        )
        return {
            "split": self.split,
            "samples": self.samples,
            "sessions_per_part": SESSIONS_PER_PART,
            "seed": self.run.config.seed,
            "profile": self.run.config.profile.model_dump(),
            "precision": self.run.config.engine.precision,
            "data": self.run.dataset.content,
            "base_model": self.run.config.policy.model,
            **self.run.config.policy.model_dump(
                include={"template_arguments", "thinking", "date"}, exclude_defaults=True
            ),
            "policy": {path.name: file_hash(path) for path in weights},
        }

    @property
    def made_of_before(self) -> dict[str, Any]:
        """`made_of` as an earlier version noted it, with the hashes of the data's files."""
        return {**self.made_of, "data": self.run.dataset.info.get("sha256")}

    @property
    def num_parts(self) -> int:
        """How many parts the sessions fill."""
        return -(-len(self.sessions) // SESSIONS_PER_PART)

    def rows(self, part: int) -> range:
        """Which sessions are in a part."""
        return range(part * SESSIONS_PER_PART, min((part + 1) * SESSIONS_PER_PART, len(self.sessions)))


def write_share(job: Job, parts: Path, rank: int, size: int) -> None:
    """Write every part that is missing and whose number is `rank` modulo `size`.

    Raises `RunError` when a part cannot be written, `TrainingError` when memory or a GPU is lost.
    """
    missing = [part for part in range(rank, job.num_parts, size) if not _part(parts, part).exists()]
    if not missing:
        return
    keep_freed_memory()
    writer = job.run.writer()
    shown = _num_sessions(job, parts) * job.num_profiles
    with progress(len(job.sessions) * job.num_profiles, "profiles", shown) as advance:
        for part in missing:
            num_done = 0

            def on_batch(written: list[list[int]]) -> None:
                nonlocal num_done, shown
                num_done += len(written)
                # Other processes' profiles count once their part is complete.
                now = _num_sessions(job, parts) * job.num_profiles + num_done
                advance(now - shown)
                shown = now

            with explained(WRITING, job.run.config):
                table = _write_table(job, writer, job.rows(part), on_batch)
            _save(_part(parts, part), partial(_write_file, table))


def _write_file(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path.absolute())


def _write_table(job: Job, writer: ProfileWriter, rows: range, on_batch: OnBatch) -> pa.Table:
    """The profiles of the sessions at `rows`."""
    sessions = job.sessions.take(np.asarray(rows))
    profiles = writer.write(
        writer.prompts(sessions),
        greedy=True,
        num_samples=job.samples,
        seeds=[evaluation_seed(job.run.config.seed, int(session)) for session in sessions.session_ids],
        on_batch=on_batch,
    )
    columns = {
        "session_id": np.repeat(sessions.session_ids, job.num_profiles),
        "user_id": [user for user in sessions.user_ids for _ in range(job.num_profiles)],
        "split": [split for split in sessions.splits for _ in range(job.num_profiles)],
        "sample": np.tile(np.arange(job.num_profiles), len(sessions)),
        "profile": profiles.texts,
        "num_tokens": [len(tokens) for tokens in profiles.tokens],
        "finished": profiles.finished,
    }
    return pa.table(columns, schema=SCHEMA)


def _join(job: Job, parts: Path, out: Path) -> None:
    """Assemble `out` from all parts, and delete them once it is complete."""
    whole = parts / _WHOLE
    schema = SCHEMA.with_metadata({_MADE_OF: json.dumps(job.made_of).encode()})

    def write(path: Path) -> None:
        with pq.ParquetWriter(path.absolute(), schema) as writer:
            for part in range(job.num_parts):
                writer.write_table(_read_part(_part(parts, part)).cast(schema))

    _save(whole, write)
    _is_complete(out, job)  # raises where something else was put there in the meantime
    whole.replace(out)
    shutil.rmtree(parts)


def _is_complete(out: Path, job: Job) -> bool:
    """Whether `out` holds these profiles already. Raises `RunError` when it holds something else."""
    if not out.exists():
        return False
    try:
        there = json.loads(pq.read_schema(out.absolute()).metadata[_MADE_OF])
    except (OSError, ValueError, pa.ArrowException, LookupError, TypeError, RecursionError):
        there = None
    if not isinstance(there, dict):
        raise RunError(f"{out} is there already, and no file of profiles. Choose another OUT.")
    if difference := _difference(there, job.made_of, job.made_of_before):
        raise RunError(f"{out} holds other profiles: {difference}. Choose another OUT, or delete it.")
    return True


def _read_part(file: Path) -> pa.Table:
    """The profiles in a part. Raises `RunError` for a part that is damaged."""
    try:
        with open_parquet(file) as written:
            table: pa.Table = written.read()
        table.validate(full=True)
        if table.schema.equals(SCHEMA):
            return table
        reason = "its columns are others"
    except (OSError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
    raise RunError(f"{file} is damaged: {reason}. Delete it and run the same command again, which writes it anew.")


def _read_job(parts: Path) -> dict[str, Any]:
    """What the parts in a folder are made of. Raises `RunError` for a file that does not say it."""
    path = parts / _JOB
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        there = None
    if not isinstance(there, dict):
        raise RunError(
            f"{path} is damaged, so nothing says which profiles the parts beside it hold. Delete the folder {parts} "
            "and run the same command again, or choose another OUT."
        )
    return there


def _difference(there: dict[str, Any], made_of: dict[str, Any], made_of_before: dict[str, Any] | None) -> str:
    """In which way profiles are not made of this, in words; empty where they are."""
    if there == made_of_before:
        return ""
    return ", ".join(
        f"their {name} is {there.get(name)!r}, not {made_of.get(name)!r}"
        for name in made_of | there
        if there.get(name) != made_of.get(name)
    )


@contextmanager
def opened_parts(out: Path, made_of: dict[str, Any], made_of_before: dict[str, Any] | None = None) -> Iterator[Path]:
    """The folder of the parts of `out`, locked for this process inside the block.

    An earlier version may have noted `made_of` as `made_of_before`.

    Raises `RunError` when another process has it or it holds something else.
    """
    parts = _parts_folder(out)
    if (
        parts.exists()
        and not (parts / _JOB).exists()
        and any(not path.name.startswith(".") for path in parts.iterdir())
    ):
        raise RunError(f"{parts}, where the parts of {out} would stand, holds something else. Choose another OUT.")
    parts.mkdir(parents=True, exist_ok=True)

    def in_progress(holder: str) -> RunError:
        return RunError(f"Another process is writing {out}{holder}. Wait until it has ended, or choose another OUT.")

    with locked(parts / _LOCK, in_progress):
        if (parts / _JOB).exists():
            there = _read_job(parts)
            if difference := _difference(there, made_of, made_of_before):
                raise RunError(
                    f"{parts} holds parts of other profiles: {difference}. Go on with those by the "
                    "options they were started with, delete the folder, or choose another OUT."
                )
        write_text(parts / _JOB, json.dumps(made_of, indent=2) + "\n")
        yield parts


def _parts_folder(out: Path) -> Path:
    return out.with_name(f"{out.name}.parts")


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:08d}.parquet"


def _num_sessions(job: Job, parts: Path) -> int:
    """How many sessions the completed parts hold."""
    return sum(len(job.rows(int(path.stem))) for path in parts.glob("[0-9]*.parquet"))


def _save(path: Path, write: Callable[[Path], object]) -> None:
    try:
        write_atomically(path, write)
    except OSError as error:
        raise RunError(
            f"{path} could not be written: {error}. What is written so far stays: free some space and run the same "
            "command again."
        ) from error


def main(arguments: Sequence[str] | None = None) -> int:
    """What each process of `langptune profiles --nproc N` runs."""
    parser = argparse.ArgumentParser(prog="langptune_rs.experiments.profiles")
    parser.add_argument("run", type=Path)
    parser.add_argument("parts", type=Path)
    parser.add_argument("--split", required=True)
    parser.add_argument("--samples", type=int, required=True)
    options = parser.parse_args(arguments)
    end_with_parent()
    try:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        job = Job.open(options.run, options.split, options.samples)
        write_share(job, options.parts, int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
    except LangptuneError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
