"""The folder of a run: who may write into it, and its configuration."""

from __future__ import annotations

import difflib
import shutil
from pathlib import Path

from langptune_rs.config import RunConfig, load_config, to_toml
from langptune_rs.errors import RunError
from langptune_rs.files import write_text

CONFIG = "config.toml"


def open_run(output: Path, config: RunConfig, *, resume: bool, overwrite: bool) -> None:
    """Make `output` ready for a run of `config`.

    Raises `RunError` when the folder holds something else: another run (unless `resume` continues the same one or
    `overwrite` deletes it), or files that no run wrote.
    """
    if resume and overwrite:
        raise RunError("--resume continues a run and --overwrite deletes it: choose one of them.")
    held = (output / CONFIG).is_file()
    if held and resume:
        _check_same(output, config)
        return
    overwrite = overwrite or (held and not _has_work(output))
    if held and not overwrite:
        raise RunError(f"{output} already holds a run. Continue it with --resume, or replace it with --overwrite.")
    if not held and output.exists() and any(output.iterdir()):
        raise RunError(f"{output} is not empty and holds no run. Choose another --output.")
    if held:
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / CONFIG, to_toml(config))


def _has_work(output: Path) -> bool:
    """Whether a run got as far as its first logged numbers; before that there is nothing to lose."""
    metrics = output / "metrics.jsonl"
    return (output / "checkpoints").exists() or (metrics.is_file() and metrics.stat().st_size > 0)


def read_config(run: Path) -> RunConfig:
    """The configuration of a run. Raises `RunError` when `run` is no run folder."""
    if not (run / CONFIG).is_file():
        raise RunError(
            f"{run} holds no run: there is no {CONFIG} in it. Give the --output folder of `langptune train`."
        )
    return load_config(run / CONFIG)


def _check_same(output: Path, config: RunConfig) -> None:
    before, now = to_toml(read_config(output)).splitlines(), to_toml(config).splitlines()
    if before != now:
        changed = [line for line in difflib.ndiff(before, now) if line[:2] in ("- ", "+ ")]
        raise RunError(
            f"{output} was started with another configuration, so it cannot be resumed with this one "
            "(- then, + now):\n"
            + "\n".join(changed)
            + "\nResume with the run's own config.toml, or choose another --output."
        )
