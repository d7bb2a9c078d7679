"""Checkpoints: the state of both engines and the position in the schedule. A checkpoint is complete or not there.

Everything random in a run is a function of the seed and the position, so no generator state is saved.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, get_args

from langptune_rs.distributed.collectives import barrier, gather_objects, on_first_rank, rank, world_size
from langptune_rs.distributed.failures import is_about_more_than_files
from langptune_rs.errors import RunError
from langptune_rs.files import file_hash, flush, flush_names, write_text
from langptune_rs.models.quiet import quiet
from langptune_rs.runs.saving import not_written
from langptune_rs.training.engines import Engine

STATE = "state.json"
"""The file that every checkpoint gets last: position, number of processes, and size and SHA-256 of each file."""


Phase = Literal["history", "contrastive", "rlso"]
"""A phase of an iteration, named like the recipe's section about it; or the steps on histories before the first."""


@dataclass(frozen=True)
class Position:
    """The next optimizer step: `phase_step` of `phase` in `iteration`; `step` counts all steps before it."""

    iteration: int = 0
    phase: Phase = "contrastive"
    phase_step: int = 0
    step: int = 0


@dataclass(frozen=True)
class Checkpoint:
    """A sound checkpoint: its files have not changed since they were written."""

    folder: Path
    position: Position


def save_checkpoint(
    folder: Path, engines: Mapping[str, Engine], position: Position, keep: int, beside: Sequence[Path] = ()
) -> None:
    """Write `folder`/step-N from all ranks, under a temporary name until it is complete; keep the newest `keep`.

    `beside` names files outside the checkpoint that it depends on. Raises `RunError` when it cannot be written; the
    earlier checkpoints stay as they are.
    """
    final = folder / f"step-{position.step:08d}-{position.iteration:04d}-{position.phase}"
    temporary = folder / f".{final.name}.tmp"
    if rank() == 0:
        for left_over in folder.glob(".step-*.tmp"):
            shutil.rmtree(left_over, ignore_errors=True)
    barrier()
    try:
        for name, engine in engines.items():
            engine.save_checkpoint(
                str(temporary / name), tag="state", save_latest=False, exclude_frozen_parameters=True
            )
        barrier()
        if rank() == 0:
            _write_state(temporary, position, beside)
            if final.exists():
                _remove(final)
            temporary.rename(final)
            flush_names(folder)
            for superseded in _superseded(list_checkpoints(folder), final, keep):
                _remove(superseded)
    except (OSError, RuntimeError) as error:
        # Raised at once by the process that failed: its exit ends the others, which may be waiting for it.
        if is_about_more_than_files(error):
            raise
        shutil.rmtree(temporary, ignore_errors=True)
        raise not_written(final, error, last_checkpoint(folder)) from error
    barrier()


def _write_state(checkpoint: Path, position: Position, beside: Sequence[Path]) -> None:
    """Flush the files of `checkpoint` to disk while they are read back and hashed, then write `STATE`."""
    files = sorted(path for path in checkpoint.rglob("*") if path.is_file()) + list(beside)
    with ThreadPoolExecutor() as pool:
        flushed = pool.submit(flush, checkpoint)
        hashes = list(pool.map(file_hash, files))
        flushed.result()
    state = {
        "position": asdict(position),
        "world_size": world_size(),
        "files": {
            os.path.relpath(path, checkpoint): {"bytes": path.stat().st_size, "sha256": sha256}
            for path, sha256 in zip(files, hashes, strict=True)
        },
    }
    write_text(checkpoint / STATE, json.dumps({"sha256": _hash_of(state), **state}, indent=2) + "\n")


def _hash_of(state: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()


def _superseded(checkpoints: Sequence[Path], newest: Path, keep: int) -> Iterable[Path]:
    """The checkpoints to remove once `newest` is complete: all but `keep`, and those of steps that are done again."""
    place = checkpoints.index(newest) + 1
    return [*checkpoints[: max(0, place - keep)], *checkpoints[place:]]


def _remove(checkpoint: Path) -> None:
    """Delete a checkpoint; it loses its name first, so that no half of it can pass for a checkpoint."""
    nameless = checkpoint.with_name(f".{checkpoint.name}.old.tmp")
    checkpoint.rename(nameless)
    shutil.rmtree(nameless)


def list_checkpoints(folder: Path) -> list[Path]:
    """The folders of all checkpoints, oldest first; their content is not looked at."""
    return sorted(folder.glob("step-*"), key=_place)


def _place(checkpoint: Path) -> tuple[str, int]:
    """Where a checkpoint stands among others: by its step and iteration, then by the order of the phases."""
    before, _, phase = checkpoint.name.rpartition("-")
    phases = get_args(Phase)
    return before, phases.index(phase) if phase in phases else len(phases)


def last_checkpoint(folder: Path) -> str:
    """A sentence on where a run can go on from."""
    checkpoints = list_checkpoints(folder)
    return f"The last checkpoint is {checkpoints[-1]}." if checkpoints else "There is no checkpoint yet."


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest sound checkpoint, which rank 0 chooses for all ranks; None if none was ever written.

    A broken one is skipped with a warning. Raises `RunError` when all are broken, and for a checkpoint that another
    number of processes wrote.
    """
    chosen: list[Checkpoint | None] = []
    on_first_rank(lambda: chosen.append(_newest_sound(folder)))
    return gather_objects(chosen)[0][0]


def _newest_sound(folder: Path) -> Checkpoint | None:
    faults: list[str] = []
    for checkpoint in reversed(list_checkpoints(folder)):
        try:
            position = _check(checkpoint)
        except _BrokenError as error:
            faults.append(f"{checkpoint}: {error}")
            continue
        for fault in faults:
            print(f"warning: a checkpoint is broken and left out, {fault}", file=sys.stderr)
        if faults:
            print(f"warning: going on from {checkpoint}; the steps after it are done again", file=sys.stderr)
        return Checkpoint(checkpoint, position)
    if faults:
        raise RunError(
            "\n".join(["No checkpoint of this run can be used:", *faults])
            + "\nPut one back from a copy, or start from the beginning with --overwrite."
        )
    return None


class _BrokenError(Exception):
    """What is wrong with a checkpoint."""


def _check(checkpoint: Path) -> Position:
    """The position of a sound checkpoint. Raises `_BrokenError` for a file that is missing or has changed.

    Raises `RunError` for another number of processes, before any large file is read.
    """
    state = _read_state(checkpoint)
    if state["world_size"] != world_size():
        raise RunError(
            f"{checkpoint} was written by {state['world_size']} processes, but {world_size()} are running. "
            f"Resume with as many: --nproc {state['world_size']}, or as many slots or tasks in all."
        )
    for name, expected in state["files"].items():
        path = checkpoint / name
        if not path.is_file():
            raise _BrokenError(f"{name} is missing")
        if (size := path.stat().st_size) != expected["bytes"]:
            raise _BrokenError(f"{name} has {size:,} bytes instead of {expected['bytes']:,}")
    with ThreadPoolExecutor() as pool:
        hashes = pool.map(file_hash, [checkpoint / name for name in state["files"]])
        for (name, expected), sha256 in zip(state["files"].items(), hashes, strict=True):
            if sha256 != expected["sha256"]:
                raise _BrokenError(f"{name} has changed since it was written (its SHA-256 is another)")
    return Position(**state["position"])


def _read_state(checkpoint: Path) -> dict[str, Any]:
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _BrokenError(f"{STATE} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _BrokenError(f"{STATE} cannot be read ({error})") from error
    if not isinstance(state, dict) or state.pop("sha256", None) != _hash_of(state):
        raise _BrokenError(f"{STATE} has changed since it was written")
    return state


def load_engines(checkpoint: Checkpoint, engines: Mapping[str, Engine]) -> None:
    """Load weights and optimizer state from a checkpoint into the engines."""
    with _no_pattern(checkpoint.folder) as folder:
        for name, engine in engines.items():
            with quiet():
                engine.load_checkpoint(str(folder / name), tag="state", load_module_strict=False)


@contextmanager
def _no_pattern(folder: Path) -> Iterator[Path]:
    """A path to `folder` that is no pattern: DeepSpeed looks for files as if the path of a checkpoint were one."""
    if glob.escape(str(folder)) == str(folder):
        yield folder
        return
    with TemporaryDirectory() as temporary:
        link = Path(temporary, "checkpoint")
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link
