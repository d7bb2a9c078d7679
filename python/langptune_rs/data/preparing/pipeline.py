"""Preparing a data set from a source once, and opening it afterwards."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

from langptune_rs.config.data import DataConfig
from langptune_rs.config.section import UNSET
from langptune_rs.data.preparing.building import Built, build, build_published
from langptune_rs.data.preparing.tokens import TokenCounters
from langptune_rs.data.sources import published
from langptune_rs.data.sources.files import NO_FILES, Files
from langptune_rs.data.sources.published_sets import local_files
from langptune_rs.data.sources.registry import find_source
from langptune_rs.data.store.dataset import Dataset
from langptune_rs.data.store.folder import LOCK, OWN, TEMPLATE, cannot_write, is_prepared, load, read_info, save
from langptune_rs.data.wording.templates import Template, make_template, read_template
from langptune_rs.errors import ConfigError, DataError
from langptune_rs.files import file_hash, locked, refuse_unwritable_name


def prepare(
    source: str | Path,
    out: str | Path,
    config: DataConfig,
    *,
    files: Files = NO_FILES,
    counters: TokenCounters | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Prepare a data set in `out` and return it. `source` is a name, with its files in `files`, or a folder.

    `counters` are needed for the limits max_item_tokens and max_history_tokens. A data set that is already in `out` is
    returned if it was made of the same files with the same configuration, and replaced if `overwrite` is true.

    Raises `DataError` when `out` holds another data set that may not be replaced, when it holds other files, when
    another process prepares a data set there, when the source is broken, and when a step leaves nothing. Raises
    `ConfigError` for a limit without counters.
    """
    out = Path(out)
    refuse_unwritable_name(out, DataError)
    plan = _plan(source, config, files, counters)
    if overwrite or not is_prepared(out):
        _refuse_foreign_files(out)
        with _locked(out):
            if overwrite or not is_prepared(out):  # another process may have been here first
                with _in_background(plan.describe) as describe:
                    built = plan.build()
                save(out, built.items, built.sessions, describe() | built.report, plan.template.source)
                return load(out)
    differences = _differences(read_info(out), plan.describe(Event()))
    if not differences:
        return load(out)
    raise DataError(
        f"{out} already holds another data set ({'; '.join(differences)}). "
        "Choose another folder, or replace it with --overwrite."
    )


def open_source(config: DataConfig, out: str | Path, counters: TokenCounters | None = None) -> Dataset:
    """The data set that a run asks for.

    A prepared folder is read where it is. Any other source is prepared into `out` once and then read from there, even
    when the files of the source are gone. Raises `DataError` and `ConfigError` as `prepare` does.
    """
    if is_prepared(Path(config.source)):
        return load(config.source)
    return open_or_prepare(config, out, counters)


def open_or_prepare(config: DataConfig, out: str | Path, counters: TokenCounters | None = None) -> Dataset:
    """As `open_source`, where `config.source` is known to be no prepared folder, whatever stands under its name."""
    out = Path(out)
    is_same = is_prepared(out) and not _differences(read_info(out), {"config": _settings(config.source, config)})
    if is_same and _is_missing(config.source):
        return load(out)
    return prepare(config.source, out, config, counters=counters)


def resolve_config(config: DataConfig) -> DataConfig:
    """`config`, with the settings that the data set was made with if `config.source` is a prepared folder.

    The user's own template is the file that it was, or the copy in that folder where this is not there.

    Raises `ConfigError` when a setting was given that differs from that of the folder.
    """
    folder = Path(config.source)
    if not is_prepared(folder):
        return config
    if others := other_settings(config):
        asked = ", ".join(f"data.{name} = {given!r}" for name, (given, _) in others.items())
        made = ", ".join(repr(setting) for _, setting in others.values())
        taken = " ".join(
            f"--set data.{name}={UNSET if setting is None else setting}" for name, (_, setting) in others.items()
        )
        raise ConfigError(
            f"{asked}, but the data set {folder} was prepared with {made}. "
            f"Take it as it is with {taken}, or prepare the data again."
        )
    return config.model_validate(config.model_dump() | _settings_in(folder, read_info(folder)))


def other_settings(config: DataConfig) -> dict[str, tuple[Any, Any]]:
    """Settings given in `config` that are others in its prepared folder: name -> (given, in the folder)."""
    folder = Path(config.source)
    info = read_info(folder)
    settings = _settings_in(folder, info)
    given = {name: getattr(config, name) for name in sorted(settings.keys() & config.model_fields_set)}
    return {
        name: (value, settings[name])
        for name, value in given.items()
        if value not in (None, settings[name], info["config"].get(name))
        and not (name == "template" and _is_template_of(info, value))
    }


def _settings_in(folder: Path, info: dict[str, Any]) -> dict[str, Any]:
    """The settings that a data set was made with, limits that are unset included."""
    return {**dict.fromkeys(_WITH_UNSET), **info["config"], "template": _template_now(folder, info)}


LIMITS = ("max_item_tokens", "max_history_tokens")
_WITH_UNSET = (*LIMITS, "rating_scale")
"""Settings that a data set has no key for where they are unset, which is a choice too."""
_SETTINGS = {
    *LIMITS,
    "split",
    "held_out",
    "history_length",
    "min_interactions",
    "template",
    "compat",
    "on_bad_line",
    "rating_scale",
    "seed",
}
"""The keys that decide what a data set holds, apart from `windows`."""


def _settings(source: str | Path, config: DataConfig) -> dict[str, Any]:
    """The settings of a data set, without those that are unset or that the source fixes."""
    if str(source) == published.NAME:
        return config.model_dump(include={"template", "compat"}, exclude_none=True) | {"split": published.NAME}
    windows = {} if config.compat == "reference" else {"windows": config.window_rule}
    return config.model_dump(include=_SETTINGS, exclude_none=True) | windows


@dataclass(frozen=True)
class _Plan:
    """What a data set will be made of, and how. Two data sets with the same description are the same."""

    describe: Callable[[Event], dict[str, Any]]
    """Source, settings and hashes, as `dataset.toml` has them. Hashing takes a while, and the event stops it."""
    template: Template
    build: Callable[[], Built]


def _plan(source: str | Path, config: DataConfig, files: Files, counters: TokenCounters | None) -> _Plan:
    if str(source) == published.NAME:
        _refuse_options(config, files)
        name, wording = published.NAME, published.TEMPLATE
        sets = (files.items or published.ITEMS, files.interactions or published.SESSIONS)
        inputs = {
            f"{role}/{file.relative_to(local)}": file
            for role, local in zip(("items", "sessions"), sets, strict=True)
            for file in local_files(local)
        }

        def build_it() -> Built:
            return build_published(published.read(*sets, compat=config.compat), template, counters)

    else:
        if config.split == published.NAME:
            raise ConfigError(f'split = "{published.NAME}" comes only with the source "{published.NAME}".')
        _check_counters(config, counters)
        found = find_source(source, files)
        name, wording = found.name, found.logs.template
        inputs = {f"{role}/{file.name}": file for role, file in found.logs.files.items()}

        def build_it() -> Built:
            return build(found.logs, config, template, counters)

    for file in (*inputs.values(), *([Path(config.template)] if config.template else [])):
        refuse_unwritable_name(file, DataError)
    template = make_template(config.template or wording, has_ratings=True, has_reviews=True)

    def describe(stop: Event) -> dict[str, Any]:
        own = {} if template.source is None else {"template": template.source}
        return {
            "config": {"template": wording} | _settings(source, config),
            "source": {"name": name, "sha256": {key: file_hash(file, stop) for key, file in inputs.items()}} | own,
            "tokenizers": {"items": counters.items.name, "histories": counters.histories.name} if counters else {},
        }

    return _Plan(describe, template, build_it)


@contextmanager
def _in_background(work: Callable[[Event], Any]) -> Iterator[Callable[[], Any]]:
    """Do `work` on a thread of its own, and yield a function that waits for its result. An error stops the work."""
    stop = Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work, stop)
        try:
            yield future.result
        except BaseException:
            stop.set()
            raise


def _differences(info: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What differs between `info` and `wanted`, in words."""
    differences = [
        f"{name} = {info['config'].get(name)!r} there, {value!r} here"
        for name, value in wanted["config"].items()
        if info["config"].get(name) != value and not (name == "template" and _is_template_of(info, value))
    ]
    differences += [
        f"{name} = {value!r} there, unset here"
        for name, value in info["config"].items()
        if name in _WITH_UNSET and name not in wanted["config"]
    ]
    if wanted.get("tokenizers", info["tokenizers"]) != info["tokenizers"]:
        differences.append("lengths counted by other tokenizers")
    if wanted.get("source", info["source"]) != info["source"]:
        differences.append("other source files")
    return differences


def _is_template_of(info: dict[str, Any], name: str) -> bool:
    """Whether `name` is a file with the text of the user's own template that the data set was made with."""
    return Path(name).is_file() and read_template(name) == info["source"].get("template")


def _template_now(folder: Path, info: dict[str, Any]) -> str:
    """The name of the template that a data set was made with, or an absolute path of one with its text."""
    name = str(info["config"]["template"])
    if TEMPLATE not in info["sha256"] or (Path(name).is_absolute() and _is_template_of(info, name)):
        return name
    return str((folder / TEMPLATE).absolute())


def _refuse_options(config: DataConfig, files: Files) -> None:
    """Raise `ConfigError` for options that the published split does not take."""
    free = {"source", "template", "compat", "max_sessions", "train_share"}
    changed = [
        name
        for name, field in DataConfig.model_fields.items()
        if name not in free and getattr(config, name) not in (field.default, None, published.NAME)
    ]
    given = [name for name in ("folder", "overview", "columns") if getattr(files, name)]
    if changed or given:
        raise ConfigError(
            f"The published split is filtered and divided already, and takes no {(changed + given)[0]}. It takes a "
            "template, compat, and local copies as its items and interactions."
        )


def _check_counters(config: DataConfig, counters: TokenCounters | None) -> None:
    limits = _limits(config)
    if limits and counters is None:
        raise ConfigError(
            f"{limits[0]} = {getattr(config, limits[0])} needs tokenizers to count with. Give "
            "counters=langptune_rs.models.tokens.token_counters(EMBEDDER, POLICY), or set "
            + " and ".join(f"{name} = none" for name in limits)
            + "."
        )


def _limits(config: DataConfig) -> list[str]:
    """The names of the limits in tokens that are set."""
    return [name for name in LIMITS if getattr(config, name) is not None]


def _is_missing(source: str) -> bool:
    try:
        find_source(source)
    except DataError:
        return True
    return False


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other processes from preparing a data set in `out`. A folder that is made for this goes if it stays empty.

    Raises `DataError` when another process is at work there, and when nothing can be written there.
    """
    is_new = not out.exists()
    lock = out / LOCK
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.touch()
    except OSError as error:
        raise cannot_write(out, error) from error
    with locked(lock, partial(_in_progress, out)):
        try:
            lock.write_text(f"{os.getpid()}\n", encoding="utf-8")
            yield
        finally:
            lock.unlink(missing_ok=True)
            if is_new and not any(out.iterdir()):
                out.rmdir()


def _in_progress(out: Path, holder: str) -> DataError:
    return DataError(
        f"A data set is being prepared in {out}{holder}. Wait until that has ended, or choose another folder."
    )


def _refuse_foreign_files(out: Path) -> None:
    if out.is_file():
        raise DataError(f"{out} is a file. Give a folder for the data set.")
    there = sorted(out.iterdir()) if out.exists() else []
    foreign = [path.name for path in there if path.name not in OWN and path.suffix != ".tmp"]
    if foreign:
        raise DataError(f"{out} holds other files, such as {foreign[0]}. Choose an empty or a new folder.")
