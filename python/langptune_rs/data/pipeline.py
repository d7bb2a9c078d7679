"""From a source to a prepared data set: filter, cut, split, report, write (section 4.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from langptune_rs.data import filters, leakage, splits
from langptune_rs.data.config import DataConfig
from langptune_rs.data.dataset import Dataset
from langptune_rs.data.sessions import SPLITS
from langptune_rs.data.sources.registry import Source, find_source
from langptune_rs.data.storage import INFO, ITEMS, SESSIONS, file_hash, is_prepared, load, read_info, save
from langptune_rs.data.windows import cut_sessions
from langptune_rs.errors import ConfigError, DataError


def prepare(
    source: str | Path, out: str | Path, config: DataConfig, *, path: Path | None = None, overwrite: bool = False
) -> Dataset:
    """Make a data set in `out` and return it. `source` is a name, with its files in `path` if given, or a folder.

    A data set that is already in `out` is returned if it was made of the same files by the same configuration.
    Raises `DataError` when it was not, unless `overwrite` allows to replace it; when `out` holds other files; when the
    source is broken; and when a step leaves nothing.
    """
    out = Path(out)
    found = find_source(source, path)
    made_of = _made_of(found, config)
    if is_prepared(out) and not overwrite:
        differences = _differences(read_info(out), made_of)
        if not differences:
            return load(out)
        raise DataError(
            f"{out} already holds a data set made otherwise ({'; '.join(differences)}). "
            "Choose another folder, or replace it with --overwrite."
        )
    _refuse_foreign_files(out)
    items, sessions, report = _build(found, config)
    save(out, items, sessions, made_of | report)
    return load(out)


def open_source(config: DataConfig, out: str | Path) -> Dataset:
    """The data set that a run asks for.

    A prepared folder is read where it is. Any other source is prepared into `out` once and read from there after,
    also when its files are no longer there. Raises `DataError` as `prepare` does.
    """
    out = Path(out)
    if is_prepared(Path(config.source)):
        return load(config.source)
    if is_prepared(out) and not _differences(read_info(out), {"config": _settings(config)}) and _is_gone(config.source):
        return load(out)
    return prepare(config.source, out, config)


def resolve_config(config: DataConfig) -> DataConfig:
    """`config` as it will be: for a prepared folder with the settings that the folder was made with.

    Raises `ConfigError` when a setting was given that differs from the folder's.
    """
    folder = Path(config.source)
    if not is_prepared(folder):
        return config
    settings = read_info(folder)["config"]
    given = {name: getattr(config, name) for name in sorted(settings.keys() & config.model_fields_set)}
    wrong = [name for name, value in given.items() if value not in (None, settings[name])]
    if wrong:
        asked = ", ".join(f"data.{name} = {given[name]!r}" for name in wrong)
        made = ", ".join(repr(settings[name]) for name in wrong)
        taken = " ".join(f"--set data.{name}={settings[name]}" for name in wrong)
        raise ConfigError(
            f"{asked}, but the data set {folder} was prepared with {made}. "
            f"Take it as it is with {taken}, or prepare the data again."
        )
    return config.model_validate(config.model_dump() | settings)


def _settings(config: DataConfig) -> dict[str, Any]:
    """The keys that decide what a data set holds, with nothing unset but the template."""
    keys = {"split", "history_length", "min_interactions", "template", "seed"}
    return config.model_dump(include=keys, exclude_none=True) | {"windows": config.window_rule}


def _made_of(source: Source, config: DataConfig) -> dict[str, Any]:
    """Source, settings and hashes: where they are the same for two data sets, so are these."""
    files = {file.name: file_hash(file) for file in (source.files.items, source.files.interactions)}
    return {
        "config": {"template": source.template} | _settings(config),
        "source": {"name": source.name, "sha256": files},
    }


def _differences(info: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What of `wanted` is different in `info`, in words."""
    differences = [
        f"{name} = {info['config'].get(name)!r} there, {value!r} here"
        for name, value in wanted["config"].items()
        if info["config"].get(name) != value
    ]
    if wanted.get("source", info["source"]) != info["source"]:
        differences.append("of other source files")
    return differences


def _is_gone(source: str) -> bool:
    try:
        find_source(source)
    except DataError:
        return True
    return False


def _refuse_foreign_files(out: Path) -> None:
    if out.is_file():
        raise DataError(f"{out} is a file. Give a folder for the data set.")
    own = {ITEMS, SESSIONS, INFO}
    there = sorted(out.iterdir()) if out.exists() else []
    foreign = [path.name for path in there if path.name not in own and path.suffix != ".tmp"]
    if foreign:
        raise DataError(f"{out} holds other files, such as {foreign[0]}. Choose an empty or a new folder.")


def _build(source: Source, config: DataConfig) -> tuple[pl.DataFrame, pl.DataFrame, dict[str, Any]]:
    """Items, sessions, and the counts and leakage report for `dataset.toml`."""
    logs = source.read()
    steps = [filters.count("source", logs.interactions)]

    items = filters.has_text(logs.items)
    interactions = logs.interactions.join(items, on="item_id", how="semi", maintain_order="left")
    steps.append(filters.count("items with text", interactions))

    interactions = filters.k_core(interactions, config.min_interactions)
    kept = filters.count(f"{config.min_interactions}-core", interactions)
    steps.append(kept)

    items = items.join(interactions, on="item_id", how="semi", maintain_order="left")
    sessions = cut_sessions(filters.in_order(interactions), config.window_rule, config.history_length)
    in_sessions = sessions.select("user_id", item_id=pl.concat_list("history", "target")).explode("item_id")
    steps.append(filters.count("sessions", in_sessions))

    sessions = splits.assign(sessions, config.split, config.seed)
    report = {
        "kept": {name: number for name, number in kept.items() if name != "step"},
        "sessions": {split: sessions.filter(split=split).height for split in SPLITS},
        "filters": steps,
        "removed": filters.removed(logs, interactions),
        "leakage": leakage.report(sessions, items.height),
    }
    return items, sessions, report
