"""The folder of a run: who may write into it, what a run writes there, and its configuration."""

from __future__ import annotations

import difflib
import os
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from langptune_rs.config import RunConfig, load_config, to_toml
from langptune_rs.data import Dataset, open_source
from langptune_rs.data.store.folder import OWN as DATA_WRITTEN
from langptune_rs.errors import ConfigError, RunError
from langptune_rs.files import locked, write_text
from langptune_rs.models.tokens import token_counters

CONFIG = "config.toml"
LOCK = ".lock"
"""Held by the process that writes into the folder, and names it; a run that has started leaves it there."""
CHECKPOINTS = "checkpoints"
DATA = "data"
TRAINED = "trained"
"""An empty file in the run folder once both final models are saved."""

MEMORY_KEYS = (
    "profile.token_budget",
    "contrastive.micro_batch_tokens",
    "rlso.micro_batch_tokens",
    "rlso.gradient_checkpointing",
)
"""Keys that decide how much memory a run takes and, except for rounding, nothing else: they may change on resume."""

WRITTEN = (
    *(TRAINED, CHECKPOINTS, "metrics.jsonl", "policy", "embedder", DATA, "tensorboard", "wandb", "report.html"),
    *("results.json", "results-train.json", "results-validation.json"),
    *("per_user.parquet", "per_user-train.parquet", "per_user-validation.parquet"),
    *("profiles.parquet", "profiles-train.parquet", "profiles-validation.parquet"),
)
"""All that a run writes beside its configuration, in the order in which it is deleted: first what shows that there is
work done."""


@contextmanager
def opened_run(output: Path, config: RunConfig, *, resume: bool, overwrite: bool) -> Iterator[None]:
    """Make `output` ready for a run of `config` and keep every other process out of it inside the block.

    Raises `RunError` when another process is at work there, when the folder holds another run (unless `resume`
    continues the same one or `overwrite` deletes it), and when it holds files that no run wrote: those are never
    deleted.
    """
    if resume and overwrite:
        raise RunError("--resume continues a run and --overwrite deletes it: choose one of them.")
    if output.is_file():
        raise RunError(f"{output} is a file. Give the run a folder with another --output.")
    found = [p.name for p in _children(output) if p.name != LOCK and not _is_temporary(p.name, (CONFIG,))]
    if found and not _holds_run(output):
        raise RunError(f"{output} is not empty ({found[0]} is there) and holds no run. Choose another --output.")
    output.mkdir(parents=True, exist_ok=True)
    with locked(output / LOCK, partial(_in_progress, output)):
        held = _holds_run(output)
        if held and resume:
            _check_same(output, config)
        else:
            if held:
                _make_room(output, overwrite=overwrite)
            write_text(output / CONFIG, to_toml(config))
        (output / LOCK).write_text(f"{os.getpid()}\n", encoding="utf-8")
        yield


def _holds_run(output: Path) -> bool:
    """Whether there is a configuration that a run wrote: it has every key; one that a person wrote leaves some out."""
    path = output / CONFIG
    try:
        load_config(path)
    except ConfigError:
        return False
    return RunConfig.model_fields.keys() <= tomllib.loads(path.read_text(encoding="utf-8")).keys()


def _in_progress(output: Path, holder: str) -> RunError:
    return RunError(
        f"A run is in progress in {output}{holder}. Wait until it has ended or stop it with Ctrl-C, or choose another "
        "--output."
    )


def _make_room(output: Path, *, overwrite: bool) -> None:
    """Delete what the run in `output` wrote, if it did no work yet or `overwrite` allows it."""
    if overwrite:
        if foreign := _foreign_files(output):
            raise RunError(
                f"--overwrite deletes what a run writes, but {foreign[0]} is none of it. Move it elsewhere, or choose "
                "another --output."
            )
    elif _has_work(output) or not _has_started(output):
        raise RunError(f"{output} already holds a run. Continue it with --resume, or replace it with --overwrite.")
    for path in _written_files(output):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _has_started(output: Path) -> bool:
    """Whether a run, and not a person preparing one, wrote the configuration."""
    lock = output / LOCK
    return lock.is_file() and lock.stat().st_size > 0


def _has_work(output: Path) -> bool:
    """Whether a run got as far as its first logged numbers; before that there is nothing to lose."""
    metrics = output / "metrics.jsonl"
    return (output / CHECKPOINTS).exists() or (metrics.is_file() and metrics.stat().st_size > 0)


def _foreign_files(output: Path) -> list[Path]:
    """What no run wrote in `output`, nor in its data folder, where a person may have put their own logs."""
    written = {output / CONFIG, output / LOCK, *_written_files(output)}
    foreign = [path for path in _children(output) if path not in written]
    return [(_foreign_data(path) or path) if path == output / DATA else path for path in foreign]


def _written_files(output: Path) -> list[Path]:
    """What a run wrote in `output` beside its configuration, including temporary files that a kill left behind."""
    named = [output / name for name in WRITTEN if (output / name).exists() or (output / name).is_symlink()]
    temporary = [path for path in _children(output) if _is_temporary(path.name, (CONFIG, *WRITTEN))]
    return [path for path in named if path.name != DATA or _foreign_data(path) is None] + temporary


def _foreign_data(data: Path) -> Path | None:
    """The first thing in `data` that belongs to no data set."""
    others = (p for p in _children(data) if p.name not in DATA_WRITTEN and not _is_temporary(p.name, DATA_WRITTEN))
    return next(others, None)


def _is_temporary(name: str, final_names: tuple[str, ...]) -> bool:
    """Whether `name` is the temporary name of one of `final_names`."""
    return name.endswith(".tmp") and any(name.startswith(f".{final}.") for final in final_names)


def _children(folder: Path) -> list[Path]:
    """What is in `folder`, sorted; empty when it is no folder."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


def has_config(run: Path) -> bool:
    """Whether this machine sees the configuration of a run in `run`."""
    return (run / CONFIG).is_file()


def open_dataset(config: RunConfig, run: Path) -> Dataset:
    """The data set of a run, prepared first if it has to be. Raises what `open_source` raises."""
    return open_source(config.data, run / DATA, token_counters(config.embedder.model, config.policy.model))


def read_config(run: Path) -> RunConfig:
    """The configuration of a run. Raises `RunError` when `run` is no run folder."""
    if not has_config(run):
        raise RunError(
            f"{run} holds no run: there is no {CONFIG} in it. Give the --output folder of `langptune train`."
        )
    return load_config(run / CONFIG, _as_it_was(run / CONFIG))


def _as_it_was(path: Path) -> list[str]:
    """Values of keys that a configuration written by an earlier version lacks, where today's default is another."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        lacks_precision = "precision" in values["engine"] and "precision" not in values["rlso"]
    except (KeyError, TypeError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return []  # `load_config` says what is wrong
    return [f"rlso.precision={values['engine']['precision']}"] if lacks_precision else []


def _check_same(output: Path, config: RunConfig) -> None:
    """Raise `RunError` for another configuration. Keys that decide only about memory may differ and are taken over."""
    before = read_config(output)
    if "precision" not in config.rlso.model_fields_set:  # a run goes on as it began, whatever the default is today
        config = config.model_copy(update={"rlso": config.rlso.model_copy(update={"precision": before.rlso.precision})})
    if _without_memory_keys(before) != _without_memory_keys(config):
        lines = difflib.ndiff(to_toml(before).splitlines(), to_toml(config).splitlines())
        changed = [line for line in lines if line[:2] in ("- ", "+ ")]
        raise RunError(
            f"{output} was started with another configuration, so it cannot be resumed with this one "
            "(- then, + now):\n"
            + "\n".join(changed)
            + "\nResume with the run's own config.toml, or choose another --output."
        )
    if before.profile.token_budget != config.profile.token_budget:
        for kept in (output / CHECKPOINTS).glob("profiles-*-of-*.jsonl"):
            kept.unlink()  # the budget decides the batches in which they are kept
    if before != config:
        write_text(output / CONFIG, to_toml(config))


def _without_memory_keys(config: RunConfig) -> dict[str, Any]:
    values = config.model_dump()
    for key in MEMORY_KEYS:
        section, name = key.split(".")
        del values[section][name]
    return values
