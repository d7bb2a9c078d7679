"""What an experiment takes from runs: each is trained and evaluated as far as it was not yet."""

from __future__ import annotations

from pathlib import Path

from langptune_rs.config import RunConfig
from langptune_rs.experiments.evaluate import evaluate_run
from langptune_rs.runs.results import results_path
from langptune_rs.training.start import started_run, train
from langptune_rs.training.subjects import PROFILES, Task


def trained(run: Path, config: RunConfig, task: Task = PROFILES) -> Path:
    """The folder of a run of `config`, trained: what is done is kept, and what was interrupted goes on.

    `task` is what its policy learns to write. Raises what `started_run` and `train` raise, such as `RunError` for a
    folder of another configuration.
    """
    with started_run(config, run, resume=(run / "config.toml").is_file(), task=task):
        train(run, task)
    return run


def evaluated(run: Path, split: str, initial_from: Path | None = None) -> Path:
    """The folder of a trained run with its results on a split, which are made if they are not there.

    The untrained policy's profiles are those of the run `initial_from`, if there is one. Raises what `evaluate_run`
    raises.
    """
    if not results_path(run, split).is_file():
        evaluate_run(run, split=split, initial_from=initial_from)
    return run
