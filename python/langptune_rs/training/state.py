"""Where a run stands: the position in the schedule, the log of its numbers, and its checkpoints."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from langptune_rs.config import RunConfig
from langptune_rs.distributed.collectives import any_rank, rank
from langptune_rs.errors import TrainingError
from langptune_rs.peak_memory import peak_memory
from langptune_rs.runs.folder import CHECKPOINTS
from langptune_rs.runs.metrics_log import MetricsLog, read_metrics
from langptune_rs.training.checkpoints import (
    Phase,
    Position,
    last_checkpoint,
    load_engines,
    newest_checkpoint,
    save_checkpoint,
)
from langptune_rs.training.engines import Engine


class TrainingState:
    """Moves from step to step, logs them and saves checkpoints, which a resumed run goes on from.

    Attributes:
        position: the next optimizer step.
        log: where rank 0 writes the numbers; None on other ranks.
    """

    def __init__(self, config: RunConfig, output: Path, engines: Mapping[str, Engine]):
        """Go on from the newest sound checkpoint in `output`, which fills the engines, or from the beginning."""
        self._config, self._engines, self._folder = config, engines, output / CHECKPOINTS
        self.position = Position(phase="history" if config.trains_on_histories else "contrastive")
        checkpoint = newest_checkpoint(self._folder)
        if checkpoint:
            self.position = checkpoint.position
            load_engines(checkpoint, engines)
        self._saved = self.position
        self.log: MetricsLog | None = None
        if rank() == 0:
            if not checkpoint and read_metrics(output):
                print(
                    f"There is no checkpoint in {output} yet: the training starts from the beginning.", file=sys.stderr
                )
            self.log = MetricsLog(output, config.logging, self.position.step, config.model_dump())

    def finish_step(self, k: int, phase: Phase, values: Mapping[str, float], seconds: float) -> None:
        """Check and log one optimizer step and move past it.

        `values` holds the step's `contrastive/loss` and `contrastive/grad_norm`, or `rlso/loss` and `rlso/grad_norm`;
        raises `TrainingError` when one is not finite.
        """
        p = self.position
        section = "rlso" if phase == "rlso" else "contrastive"
        loss, norm = values[f"{section}/loss"], values[f"{section}/grad_norm"]
        if not (math.isfinite(loss) and math.isfinite(norm) and norm >= 0):
            more = "" if self._config.engine.precision == "fp32" else ' or set engine.precision = "fp32"'
            raise TrainingError(
                f"The {section} loss is {loss} and its gradient norm {norm} at step {p.step + 1} (iteration {k + 1}). "
                f"{last_checkpoint(self._folder)}{_cause(values)} Lower {section}.learning_rate{more}."
            )
        self.position = replace(p, iteration=k, phase=phase, phase_step=p.phase_step + 1, step=p.step + 1)
        if self.log:
            costs = {"time/seconds": seconds, "memory/peak_bytes": peak_memory()}
            self.log.write(p.step + 1, k, phase, {**values, **costs})

    def needs_validation(self) -> bool:
        """Whether no validation after this step is logged yet; the same on every rank."""
        return not any_rank(self.log is not None and self.log.has_validation(self.position.step))

    def log_validation(self, k: int, values: Mapping[str, float]) -> None:
        """Log the scores of a validation at the step before it."""
        if self.log:
            self.log.write(self.position.step, k, "validation", values)

    def is_checkpoint_due(self, width: int = 1) -> bool:
        """Whether one of the last `width` steps was a multiple of `checkpoint.every`."""
        return self.position.step % self._config.checkpoint.every < width

    def enter(self, k: int, phase: Phase) -> bool:
        """Move to the start of a phase; returns False when the run is in it already."""
        if (self.position.iteration, self.position.phase) == (k, phase):
            return False
        self.position = replace(self.position, iteration=k, phase=phase, phase_step=0)
        return True

    @property
    def is_saved(self) -> bool:
        """Whether a resumed run would go on from here."""
        return self.position == self._saved

    def save(self, beside: Sequence[Path] = ()) -> None:
        """Write a checkpoint; `beside` names files outside it that it depends on."""
        if self.log:
            self.log.flush()
        save_checkpoint(self._folder, self._engines, self.position, self._config.checkpoint.keep, beside)
        self._saved = self.position

    def close(self) -> None:
        """Close the log."""
        if self.log:
            self.log.close()


def _cause(values: Mapping[str, float]) -> str:
    if count := values.get("rlso/unusable_profiles"):
        return f" {count:.0f} profiles have no finite log-probability, as with weights that are no numbers."
    return ""


class Stopwatch:
    """Measures the seconds of one lap after another."""

    def __init__(self) -> None:
        self._started = time.monotonic()

    def lap(self) -> float:
        """Seconds since the start, or since the last lap."""
        started, self._started = self._started, time.monotonic()
        return self._started - started
