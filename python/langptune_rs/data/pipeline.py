"""From a source to a prepared data set: filter, cut, split, report, write (section 4.1)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from langptune_rs.data import filters, leakage, splits
from langptune_rs.data.config import DataConfig
from langptune_rs.data.dataset import Dataset
from langptune_rs.data.passes import ITEM_FIELDS, Keys, read_items, read_keys, read_reviews
from langptune_rs.data.sessions import SPLITS
from langptune_rs.data.sources.raw import NO_FILES, BadLines, Files
from langptune_rs.data.sources.registry import Source, find_source
from langptune_rs.data.storage import OWN, file_hash, is_prepared, load, read_info, save
from langptune_rs.data.templates import Item, Template, make_template
from langptune_rs.data.tokens import TokenCounters
from langptune_rs.data.windows import cut_sessions
from langptune_rs.errors import ConfigError, DataError


def prepare(
    source: str | Path,
    out: str | Path,
    config: DataConfig,
    *,
    files: Files = NO_FILES,
    counters: TokenCounters | None = None,
    overwrite: bool = False,
) -> Dataset:
    """Make a data set in `out` and return it. `source` is a name, with its files in `files`, or a folder.

    `counters` are needed for the limits max_item_tokens and max_history_tokens. A data set that is already in `out` is
    returned if it was made of the same files by the same configuration. Raises `DataError` when it was not, unless
    `overwrite` allows to replace it; when `out` holds other files; when the source is broken; and when a step leaves
    nothing. Raises `ConfigError` for a limit without counters.
    """
    out = Path(out)
    _check_counters(config, counters)
    found = find_source(source, files)
    made_of = _made_of(found, config, counters)
    if is_prepared(out) and not overwrite:
        differences = _differences(read_info(out), made_of)
        if not differences:
            return load(out)
        raise DataError(
            f"{out} already holds a data set made otherwise ({'; '.join(differences)}). "
            "Choose another folder, or replace it with --overwrite."
        )
    _refuse_foreign_files(out)
    items, sessions, _, report = _build(found, config, counters)
    save(out, items, sessions, made_of | report)
    return load(out)


def open_source(config: DataConfig, out: str | Path, counters: TokenCounters | None = None) -> Dataset:
    """The data set that a run asks for.

    A prepared folder is read where it is. Any other source is prepared into `out` once and read from there after,
    also when its files are no longer there. Without the `counters` that its limits need, a data set that is there is
    taken for what it says that it is. Raises `DataError` and `ConfigError` as `prepare` does.
    """
    out = Path(out)
    if is_prepared(Path(config.source)):
        return load(config.source)
    is_same = is_prepared(out) and not _differences(read_info(out), {"config": _settings(config)})
    if is_same and (_is_gone(config.source) or (_limits(config) and counters is None)):
        return load(out)
    return prepare(config.source, out, config, counters=counters)


def resolve_config(config: DataConfig) -> DataConfig:
    """`config` as it will be: for a prepared folder with the settings that the folder was made with.

    Raises `ConfigError` when a setting was given that differs from the folder's.
    """
    folder = Path(config.source)
    if not is_prepared(folder):
        return config
    settings = dict.fromkeys(LIMITS) | read_info(folder)["config"]
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


LIMITS = ("max_item_tokens", "max_history_tokens")
_SETTINGS = {
    *LIMITS,
    "split",
    "history_length",
    "min_interactions",
    "template",
    "compat",
    "on_bad_line",
    "seed",
}
"""The keys that decide what a data set holds, beside `windows`."""


def _settings(config: DataConfig) -> dict[str, Any]:
    """The settings of a data set, without those that are unset."""
    windows = {} if config.compat == "reference" else {"windows": config.window_rule}
    return config.model_dump(include=_SETTINGS, exclude_none=True) | windows


def _made_of(source: Source, config: DataConfig, counters: TokenCounters | None) -> dict[str, Any]:
    """Source, settings and hashes: where they are the same for two data sets, so are these."""
    hashes = {file.name: file_hash(file) for file in source.logs.files.values()}
    tokenizers = {"items": counters.items.name, "histories": counters.histories.name} if counters else {}
    return {
        "config": {"template": source.logs.template} | _settings(config),
        "source": {"name": source.name, "sha256": hashes},
        "tokenizers": tokenizers,
    }


def _differences(info: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What of `wanted` is different in `info`, in words."""
    differences = [
        f"{name} = {info['config'].get(name)!r} there, {value!r} here"
        for name, value in wanted["config"].items()
        if info["config"].get(name) != value
    ]
    differences += [
        f"{name} = {value!r} there, unset here"
        for name, value in info["config"].items()
        if name in LIMITS and name not in wanted["config"]
    ]
    if wanted.get("tokenizers", info["tokenizers"]) != info["tokenizers"]:
        differences.append("with lengths counted by other tokenizers")
    if wanted.get("source", info["source"]) != info["source"]:
        differences.append("of other source files")
    return differences


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
    """The limits in tokens that are set."""
    return [name for name in LIMITS if getattr(config, name) is not None]


def _is_gone(source: str) -> bool:
    try:
        find_source(source)
    except DataError:
        return True
    return False


def _refuse_foreign_files(out: Path) -> None:
    if out.is_file():
        raise DataError(f"{out} is a file. Give a folder for the data set.")
    there = sorted(out.iterdir()) if out.exists() else []
    foreign = [path.name for path in there if path.name not in OWN and path.suffix != ".tmp"]
    if foreign:
        raise DataError(f"{out} holds other files, such as {foreign[0]}. Choose an empty or a new folder.")


def _build(
    source: Source, config: DataConfig, counters: TokenCounters | None
) -> tuple[pl.DataFrame, pl.DataFrame, Template, dict[str, Any]]:
    """Items, sessions, their wording, and the counts and the leakage report for `dataset.toml`."""
    template = make_template(config.template or source.logs.template, has_ratings=True, has_reviews=True)
    bad, steps, k = BadLines(config.on_bad_line), filters.Steps(), config.min_interactions
    keys = read_keys(source.logs, bad)
    log = steps.count("source", keys.interactions)
    log = steps.count("described items", log.filter(pl.col("item").is_not_null()), optional=True)
    num_described = log.height
    log = steps.count("items with text", log.filter(keys.items["has_text"].gather(log["item"])))
    log = steps.count(f"{k}-core", _core(log, k))
    # The same as before the core, whose counts duplicates can only raise, and of far fewer rows.
    unique = steps.count("without duplicates", filters.without_duplicates(log), optional=True)
    num_duplicates = log.height - unique.height
    log = steps.count(f"{k}-core again", _core(unique, k), optional=True)

    items = _read_items(source, keys, log, template, counters, bad)
    num_items = items.height
    if config.max_item_tokens is not None:
        items = items.filter(pl.col("num_tokens") <= config.max_item_tokens)
        log = steps.count("items within length", log.filter(_is_in("item", items["item"])), optional=True)
        log = steps.count(f"{k}-core again", _core(log, k), optional=True)
    num_long_items = num_items - items.height
    items = items.filter(_is_in("item", log["item"].unique()))

    log = filters.in_order(_users_in_order(log, keys))
    windows = cut_sessions(log["user"].to_numpy(), log["item"].to_numpy(), config.window_rule, config.history_length)
    steps.count("sessions", log[windows.ravel()])
    sessions = _read_sessions(source, keys, log, windows, bad)
    sessions = sessions.with_columns(num_tokens=_history_tokens(sessions, items, template, counters))
    num_long_histories = 0
    if config.max_history_tokens is not None:
        short = sessions["num_tokens"] <= config.max_history_tokens
        steps.count("histories within length", log[windows[short.to_numpy()].ravel()], optional=True)
        num_long_histories = sessions.height - int(short.sum())
        sessions = sessions.filter(short)

    sessions = splits.assign(sessions, config.split_rule, config.seed)
    sessions = sessions.with_columns(session_id=pl.int_range(pl.len()))
    kept = {"users": log["user"].n_unique(), "items": items.height, "interactions": log.height}
    num_with_text = int(keys.items["has_text"].sum())
    report = {
        "kept": kept,
        "sessions": {split: sessions.filter(split=split).height for split in SPLITS},
        "filters": steps.counts,
        "removed": {
            "users_with_too_few_interactions": int(steps.counts[0]["users"]) - kept["users"],
            "items_with_too_few_interactions": num_with_text - num_long_items - kept["items"],
            "items_without_text": keys.items.height - num_with_text,
            "items_too_long": num_long_items,
            "repeated_descriptions": keys.num_repeated_items,
            "interactions_with_undescribed_items": keys.interactions.height - num_described,
            "duplicate_interactions": num_duplicates,
            "sessions_too_long": num_long_histories,
            "repeated_interactions_kept": log.height - log.select("user", "item").n_unique(),
            "bad_lines": sum(bad.counts.values()),
        },
        "bad_lines": [{"line": message} for message in bad.first],
        "leakage": leakage.report(sessions, items.height),
    }
    return items, sessions, template, report


def _is_in(column: str, values: pl.Series) -> pl.Expr:
    return pl.col(column).is_in(values.implode())


def _core(log: pl.DataFrame, k: int) -> pl.DataFrame:
    return log.filter(pl.Series(filters.k_core(log["user"].to_numpy(), log["item"].to_numpy(), k)))


def _users_in_order(log: pl.DataFrame, keys: Keys) -> pl.DataFrame:
    """`log` with `user_id`, and users numbered in the order of these, which does not depend on that of the file."""
    codes = log["user"].unique()
    ids = pl.DataFrame({"code": codes, "user_id": keys.users.texts(codes)}).sort("user_id").with_row_index("number")
    return log.rename({"user": "code"}).join(ids, on="code").rename({"number": "user"})


def _read_items(
    source: Source,
    keys: Keys,
    log: pl.DataFrame,
    template: Template,
    counters: TokenCounters | None,
    bad: BadLines,
) -> pl.DataFrame:
    """What `items.parquet` holds of the items of `log`, in the order of the source, and `item`, their number."""
    kept = keys.items.with_row_index("item").filter(_is_in("item", log["item"].unique()))
    items = read_items(source.logs, kept["line"], bad).join(
        kept.select("item", "line"), on="line", maintain_order="left"
    )
    fields = [Item(*row) for row in items.select(ITEM_FIELDS[1:]).iter_rows()]
    texts = [template.item_text(item) for item in fields]
    return items.with_columns(
        text=pl.Series(texts, dtype=pl.String),
        line=pl.Series([template.item_line(item) for item in fields], dtype=pl.String),
        num_tokens=pl.Series(counters.items(texts) if counters else [None] * len(texts), dtype=pl.UInt32),
    )


def _read_sessions(source: Source, keys: Keys, log: pl.DataFrame, windows: np.ndarray, bad: BadLines) -> pl.DataFrame:
    """One row per session with the columns of `sessions.parquet` but split and num_tokens, and `first_timestamp`."""
    history, target = log[windows[:, :-1].ravel()], log[windows[:, -1]]
    reviews = history.join(
        read_reviews(source.logs, history["line"].to_numpy(), bad), on="line", how="left", maintain_order="left"
    )
    shape = (len(windows), windows.shape[1] - 1)
    ids = keys.items["item_id"]
    return pl.DataFrame(
        {
            "session_id": np.arange(len(windows)),
            "user_id": target["user_id"],
            "history": ids.gather(history["item"]).reshape(shape).arr.to_list(),
            "ratings": history["rating"].reshape(shape).arr.to_list(),
            "reviews": reviews["review_text"].reshape(shape).arr.to_list(),
            "target": ids.gather(target["item"]),
            "target_timestamp": target["timestamp"],
            "first_timestamp": history["timestamp"].gather_every(shape[1]),
        }
    )


def _history_tokens(
    sessions: pl.DataFrame, items: pl.DataFrame, template: Template, counters: TokenCounters | None
) -> pl.Series:
    """The policy's tokens of each session's history: its entries, without instruction."""
    if counters is None:
        return pl.Series([None] * sessions.height, dtype=pl.UInt32)
    texts = dict(items.select("item_id", "text").iter_rows())
    histories = [
        "\n\n".join(map(template.history_entry, map(texts.__getitem__, history), ratings, reviews))
        for history, ratings, reviews in sessions.select("history", "ratings", "reviews").iter_rows()
    ]
    return pl.Series(counters.histories(histories), dtype=pl.UInt32)
