"""Checkpoints: the state of both engines and the place in the schedule, complete or not there at all.

Everything random in a run is a function of the seed and the place in the schedule, so no generator state is saved.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from langptune_rs.errors import RunError
from langptune_rs.files import flush, write_text
from langptune_rs.models.quiet import quiet
from langptune_rs.training.engines import barrier, rank, world_size
from langptune_rs.training.saving import not_written

STATE = "state.json"


@dataclass(frozen=True)
class Position:
    """The next optimizer step: `phase_step` of `phase` in `iteration`; `step` counts all steps before it."""

    iteration: int = 0
    phase: str = "contrastive"
    phase_step: int = 0
    step: int = 0


def save_checkpoint(folder: Path, engines: dict, position: Position, keep: int) -> None:
    """Write `folder`/step-N by all ranks, under a temporary name until it is whole; keep the newest `keep`.

    Raises `RunError` when it cannot be written; the checkpoints before it stay as they are.
    """
    final = folder / f"step-{position.step:08d}-{position.iteration:04d}-{position.phase}"
    temporary = folder / f".{final.name}.tmp"
    if rank() == 0:
        shutil.rmtree(temporary, ignore_errors=True)
    barrier()
    try:
        for name, engine in engines.items():
            engine.save_checkpoint(
                str(temporary / name), tag="state", save_latest=False, exclude_frozen_parameters=True
            )
        barrier()
        if rank() == 0:
            state = {"position": asdict(position), "world_size": world_size()}
            write_text(temporary / STATE, json.dumps(state, indent=2) + "\n")
            flush(temporary)
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
            for old in list_checkpoints(folder)[:-keep]:
                shutil.rmtree(old)
    except (OSError, RuntimeError) as error:
        # Raised at once by the process that failed: its exit ends the others, which may be waiting for it.
        shutil.rmtree(temporary, ignore_errors=True)
        raise not_written(final, error, last_checkpoint(folder)) from error
    barrier()


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{STATE}"))


def last_checkpoint(folder: Path) -> str:
    """A sentence on where a run can go on from."""
    checkpoints = list_checkpoints(folder)
    return f"The last checkpoint is {checkpoints[-1]}." if checkpoints else "There is no checkpoint yet."


def read_position(folder: Path) -> Position | None:
    """Where the newest checkpoint stands, or None if there is none.

    Raises `RunError` for a checkpoint of another number of processes.
    """
    checkpoints = list_checkpoints(folder)
    if not checkpoints:
        return None
    state = json.loads((checkpoints[-1] / STATE).read_text(encoding="utf-8"))
    if state["world_size"] != world_size():
        raise RunError(
            f"{checkpoints[-1]} was written by {state['world_size']} processes, but {world_size()} are running. "
            f"Resume with --nproc {state['world_size']}."
        )
    return Position(**state["position"])


def load_engines(folder: Path, engines: dict) -> None:
    """Load weights and optimizer state from the newest checkpoint into the engines."""
    newest = list_checkpoints(folder)[-1]
    for name, engine in engines.items():
        with quiet():
            engine.load_checkpoint(str(newest / name), tag="state", load_module_strict=False)
