"""The folder of a run: who may write into it, what a run writes there, and its configuration."""

from __future__ import annotations

import difflib
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from langptune_rs.config import RunConfig, load_config, to_toml
from langptune_rs.data import Dataset, load, resolve_config
from langptune_rs.data.preparing.pipeline import open_or_prepare, other_settings
from langptune_rs.data.preparing.tokens import TokenCounters
from langptune_rs.data.store.folder import OWN as DATA_WRITTEN
from langptune_rs.data.store.folder import is_prepared
from langptune_rs.distributed.collectives import rank
from langptune_rs.errors import ConfigError, RunError
from langptune_rs.files import locked, refuse_unwritable_name, write_text
from langptune_rs.models.tokens import token_counters
from langptune_rs.runs.earlier_versions import DATE, LATER_KEYS, as_begun, as_resumed, lacks_date
from langptune_rs.runs.origin import ORIGIN, Data, check_data, read_origin, write_origin
from langptune_rs.runs.paths import found_paths, is_name

CONFIG = "config.toml"
LOCK = ".lock"
"""Held by the process that writes into the folder, and names it; a run that has started leaves it there."""
CHECKPOINTS = "checkpoints"
DATA = "data"
TRAINED = "trained"
"""A file in the run folder once both final models are saved, with the hashes of their files: see `saved_models`."""

PLACE_KEYS = ("data.source", "data.template")
"""Keys that say where the data is. What the data holds is compared, so they may change on resume."""
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
    *("steerability.json", "steerability-train.json", "steerability-validation.json", "steerability"),
    ORIGIN,
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
    refuse_unwritable_name(output, RunError)
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
    if written_config(output) is None:
        return False
    keys = RunConfig.model_fields.keys() - LATER_KEYS
    return keys <= tomllib.loads((output / CONFIG).read_text(encoding="utf-8")).keys()


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


def written_config(run: Path) -> RunConfig | None:
    """The configuration that a run has written, as it is; None where none can be read."""
    try:
        return load_config(run / CONFIG)
    except ConfigError:
        return None


def has_config(run: Path) -> bool:
    """Whether this machine sees the configuration of a run in `run`."""
    return (run / CONFIG).is_file()


def open_dataset(config: RunConfig, run: Path) -> Dataset:
    """The data set of a run, prepared first if it has to be.

    Where a run has prepared its data itself, in its own folder, that is what it goes on with, whatever has become of
    the source.

    Raises `RunError`, with what differs, when the data is not what the run was trained on, and what `open_source`
    raises. A run that has trained but whose version did not note its data gets a warning on stderr.
    """
    origin, own, source = read_origin(run), run / DATA, Path(config.data.source)
    place = source if _names_prepared(config) else own
    if origin is None:
        if _has_work(run):
            _check_settings(config, run)
            _warn_of_unknown_data(run, place)
        return opened_data(config, place)
    if source.is_absolute() and not source.exists() and not is_prepared(own):
        raise RunError(
            f"The data of {run} is not there: data.source is {source}. Put it back, or write where it is now into "
            f"{run / CONFIG}. What it holds is compared with what the run was trained on."
        )
    dataset = load(place) if is_prepared(place) else opened_data(config, own)
    check_data(run, origin.data, dataset, place)
    return dataset


def data_folder(config: RunConfig, run: Path) -> Path:
    """The folder of a run's prepared data set, as `open_dataset` opens it."""
    return Path(config.data.source) if _names_prepared(config) else run / DATA


def resolved_data(config: RunConfig) -> RunConfig:
    """A configuration with the settings of the prepared data set that it names. Raises what `resolve_config` raises."""
    return config.model_copy(update={"data": resolve_config(config.data)}) if _names_prepared(config) else config


def _names_prepared(config: RunConfig) -> bool:
    """Whether a run's data is a prepared data set. A name such as ml-100k is never a folder of the working folder."""
    return not is_name("data.source", config.data.source) and is_prepared(Path(config.data.source))


def opened_data(config: RunConfig, place: Path) -> Dataset:
    """The data set of a run whose data is, or will be prepared, in `place`."""
    return load(place) if _names_prepared(config) else open_or_prepare(config.data, place, _counters(config))


def check_prepared_source(config: RunConfig, run: Path) -> None:
    """Raise `RunError`, as `open_dataset`, when the prepared data set that a run names is not what it trained on.

    This comes before its settings are compared with the recipe's, which would be told to follow the wrong ones.
    """
    origin, source = read_origin(run), Path(config.data.source)
    if origin and _names_prepared(config):
        check_data(run, origin.data, load(source), source)


def note_data(run: Path, dataset: Dataset) -> None:
    """Note what a run trains on, unless it is noted already."""
    if read_origin(run) is None:
        write_origin(run, Data.of(dataset))


def _counters(config: RunConfig) -> TokenCounters:
    return token_counters(config.embedder.model, config.policy.model)


def _check_settings(config: RunConfig, run: Path) -> None:
    """Raise `RunError` when a data set that a run of an older version names was prepared anew with other settings."""
    if _names_prepared(config) and (others := other_settings(config.data)):
        differences = ", ".join(f"{name}: {then} then, {now} now" for name, (then, now) in others.items())
        raise RunError(
            f"{config.data.source} no longer holds the data that {run} was trained on. It was prepared with another "
            f"{differences}. Put the data back as it was, or train a new run with another --output."
        )


def _warn_of_unknown_data(run: Path, data: Path) -> None:
    if rank() == 0:
        print(
            f"warning: {run} has not noted which data it was trained on, as runs of this version do. Whether {data} "
            "still holds it is not known.",
            file=sys.stderr,
        )


def read_config(run: Path) -> RunConfig:
    """The configuration of a run, with its paths where they are now.

    Raises `RunError` when `run` is no run folder, and what `found_paths` raises.
    """
    if not has_config(run):
        raise RunError(
            f"{run} holds no run: there is no {CONFIG} in it. Give the --output folder of `langptune train`."
        )
    config = found_config(load_config(run / CONFIG), run)
    is_begun = _has_work(run) or any((run / model).is_dir() for model in ("policy", "embedder"))
    return as_begun(config, run / CONFIG) if is_begun else config


def found_config(config: RunConfig, run: Path) -> RunConfig:
    """A configuration for the run in `run`, with its paths where they are now. Raises what `found_paths` raises."""
    origin = read_origin(run)
    return found_paths(config, run, origin.folder if origin else None)


def _check_same(output: Path, config: RunConfig) -> None:
    """Raise `RunError` for another configuration. Keys that decide only about memory may differ and are taken over.

    So may those that say where the data is, if what it held is noted.
    """
    before, origin = resolved_data(read_config(output)), read_origin(output)  # an older version wrote names of files
    config = as_resumed(config, before)
    may_change = [*MEMORY_KEYS, *(PLACE_KEYS if origin else ()), *([DATE] if lacks_date(output / CONFIG) else ())]
    if _without(before, may_change) != _without(config, may_change):
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
    if load_config(output / CONFIG) != config:
        write_text(output / CONFIG, to_toml(config))
    if origin and origin.folder != output.absolute():
        write_origin(output, origin.data)


def _without(config: RunConfig, keys: Sequence[str]) -> dict[str, Any]:
    values = config.model_dump()
    for key in keys:
        section, name = key.split(".")
        del values[section][name]
    return values
