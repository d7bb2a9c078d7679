"""Where the numbers of a run go: metrics.jsonl always, TensorBoard and Weights & Biases on request."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from langptune_rs.config.logging import LoggingConfig
from langptune_rs.errors import ConfigError, RunError
from langptune_rs.files import whole_lines, write_text


class MetricsLog:
    """Appends one JSON object a step. Only rank 0 makes a log."""

    def __init__(self, run: Path, config: LoggingConfig, last_step: int, run_config: dict[str, Any]):
        """Open the log of `run`; `run_config` is the whole recipe, for Weights & Biases.

        On resume the lines after `last_step` are dropped, since their steps will be done again. Raises `ConfigError`
        when the recipe asks for wandb and it is not installed.
        """
        self._path = run / "metrics.jsonl"
        kept = [line for line in read_metrics(run) if line["step"] <= last_step]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self._path.open("a", encoding="utf-8")
        self._validated = {line["step"] for line in kept if line["phase"] == "validation"}
        self._tensorboard = self._wandb = None
        if config.tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(run / "tensorboard"), purge_step=last_step + 1)
        if config.wandb:
            try:
                import wandb
            except ImportError as error:
                raise ConfigError(
                    "logging.wandb = true, but the package wandb is not installed. Run `pip install wandb`."
                ) from error
            self._wandb = wandb.init(project=config.wandb_project, dir=run, config=run_config, name=run.name)

    def write(self, step: int, iteration: int, phase: str, values: Mapping[str, float]) -> None:
        """Log the values of one optimizer step or of a validation after it.

        `phase` is "history", "contrastive" or "rlso", or "validation".
        """
        self._file.write(json.dumps({"step": step, "iteration": iteration, "phase": phase, **values}) + "\n")
        self._file.flush()
        if self._tensorboard:
            for name, value in values.items():
                self._tensorboard.add_scalar(name, value, step)
        if self._wandb:
            self._wandb.log(values, step=step)

    def flush(self) -> None:
        """Write everything that was logged to disk."""
        os.fsync(self._file.fileno())

    def has_validation(self, step: int) -> bool:
        """Whether the run that is resumed was validated after `step`."""
        return step in self._validated

    def close(self) -> None:
        """Close the file and the loggers beside it."""
        self._file.close()
        if self._tensorboard:
            self._tensorboard.close()
        if self._wandb:
            self._wandb.finish()


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The objects of a run's metrics.jsonl, empty if there is none; a line cut off by a crash is left out.

    Raises `RunError` for a line that no run wrote.
    """
    path = run / "metrics.jsonl"
    try:
        lines = whole_lines(path)
    except UnicodeDecodeError as error:
        raise _damaged(path, f"is no UTF-8 at byte {error.start + 1}") from error
    return [_values(path, number, line) for number, line in enumerate(lines, start=1)]


def step_seconds(lines: Iterable[Mapping[str, Any]]) -> float:
    """The time of a run's optimizer steps, with what the policy wrote for them, from the lines of its metrics.jsonl."""
    return float(sum(line.get("time/seconds", 0.0) for line in lines))


def most_memory(lines: Iterable[Mapping[str, Any]]) -> float | None:
    """The most bytes that the process of a run has held by its last step; None where the run did not note it.

    Of several processes it is that of rank 0. What a GPU holds is not in it.
    """
    return max((line["memory/peak_bytes"] for line in lines if "memory/peak_bytes" in line), default=None)


def _values(path: Path, number: int, line: str) -> dict[str, Any]:
    """The object on a line."""
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"has no JSON on line {number} ({error or type(error).__name__})") from error
    if not isinstance(values, dict):
        raise _damaged(path, f"has no object on line {number}")
    for name, kind in _OF_EVERY_LINE.items():
        if type(values.get(name)) is not kind:
            raise _damaged(path, f"has no {name} on line {number}")
    for name, value in values.items():
        if name not in _OF_EVERY_LINE and type(value) not in (int, float):
            raise _damaged(path, f"has {name} = {json.dumps(value)[:80]}, which is no number, on line {number}")
    return values


_OF_EVERY_LINE = {"step": int, "iteration": int, "phase": str}


def _damaged(path: Path, what: str) -> RunError:
    return RunError(
        f"{path} {what}: it is damaged. Restore it from a copy, or delete the lines that are no longer whole."
    )
