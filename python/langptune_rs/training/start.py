"""How a run starts: the processes meet, rank 0 locks the folder, and training goes on from what is there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from langptune_rs.config import RunConfig
from langptune_rs.config.description import COMMANDS
from langptune_rs.distributed.collectives import after_first_rank, first_rank_sees, gather_objects, on_first_rank
from langptune_rs.distributed.failures import LOADING, explained
from langptune_rs.distributed.start import start_distributed
from langptune_rs.errors import ConfigError, RunError
from langptune_rs.models.memory import free_memory, keep_freed_memory
from langptune_rs.peak_memory import start_of_peak
from langptune_rs.runs.folder import (
    CONFIG,
    TRAINED,
    check_prepared_source,
    found_config,
    has_config,
    note_data,
    open_dataset,
    opened_run,
    read_config,
    resolved_data,
    written_config,
)
from langptune_rs.runs.paths import absolute_paths
from langptune_rs.training.subjects import PROFILES, Task
from langptune_rs.training.trainer import Trainer


@contextmanager
def started_run(
    config: RunConfig, output: Path, *, resume: bool = False, overwrite: bool = False, task: Task = PROFILES
) -> Iterator[None]:
    """Join the other processes and lock the folder `output` for a run of `config` inside the block.

    `task` is what its policy will learn to write.

    Relative paths in `config` are those of the working folder, and absolute in the run's own configuration. What that
    has as a name stays one when the run is resumed.

    Raises `RunError` on every rank when `output` is in use or holds something else, and `ConfigError` when the recipe
    does not fit a prepared data set or is to write something else.
    """
    if config.writes != task.writes:
        raise ConfigError(
            f'writes = "{config.writes}" is a recipe for `langptune {COMMANDS[config.writes]}`, and this trains a '
            f"policy that writes {task.writes}. Use that command, or another recipe."
        )
    keep_freed_memory()
    start_distributed()
    resumes = resume and first_rank_sees(output / CONFIG)
    config = absolute_paths(config, written_config(output) if resumes else None)
    if resumes:
        config = found_config(config, output)
        on_first_rank(lambda: check_prepared_source(config, output))
    config = resolved_data(config)
    with ExitStack() as stack:
        on_first_rank(lambda: stack.enter_context(opened_run(output, config, resume=resume, overwrite=overwrite)))
        if unseen := [host for host in gather_objects(None if has_config(output) else socket.gethostname()) if host]:
            raise RunError(
                f"{output.absolute()}, which rank 0 has made, is not there on {', '.join(sorted(set(unseen)))}. All "
                "machines of a run need one file system: choose an --output on it."
            )
        yield


def train(output: Path, task: Task = PROFILES) -> None:
    """Train as the recipe in `output` says and save both models there. A run that is trained already stays as it is.

    `task` is what its policy learns to write.

    Raises `ConfigError` when the recipe does not fit the data or the number of processes, `TrainingError` when a loss
    is not finite, `RunError` when the data is not what the run has trained on so far or something cannot be saved, and
    `Stopped` after Ctrl-C, once the run is saved.
    """
    if first_rank_sees(output / TRAINED):
        return
    config = read_config(output)
    with explained(LOADING, config):
        dataset = after_first_rank(lambda: open_dataset(config, output))
        on_first_rank(lambda: note_data(output, dataset))
        start_of_peak()
        trainer = Trainer(config, output, dataset, task)
    trainer.run()
    del trainer
    free_memory()
