"""From raw logs to a prepared data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from langptune_rs.data import store
from langptune_rs.data.catalog import Dataset
from langptune_rs.data.config import DataConfig
from langptune_rs.data.sessions import cut_windows, in_order, k_core, leakage, split_sessions
from langptune_rs.data.sources import jsonl, ml_100k
from langptune_rs.data.sources.logs import Logs
from langptune_rs.data.templates import get_template
from langptune_rs.errors import DataError

SOURCES = {"ml-100k": "MovieLens-100K: 943 users, 1,682 films, 100,000 ratings, from the package recbole"}
UNTITLED_WORDS = 8
"""An item without a title is called by the first words of its description, or else by its categories."""


def read_source(source: str | Path) -> Logs:
    """Raw logs of a source name or of a folder of JSON lines. Raises `DataError` naming what there is."""
    if str(source) == "ml-100k":
        return ml_100k.read()
    folder = Path(source)
    if folder.is_dir():
        return jsonl.read(folder)
    raise DataError(
        f"There is no data source {str(source)!r}: it is neither a name ({', '.join(SOURCES)}) nor a folder with "
        "items.jsonl and interactions.jsonl, nor a prepared data set."
    )


def open_source(config: DataConfig, out: Path) -> Dataset:
    """The data set that `config.source` names: a prepared folder is loaded in place; anything else is prepared into
    `out`, unless `out` already holds the same files prepared with the same settings."""
    if (Path(config.source) / store.INFO).is_file():
        return store.load(config.source)
    if (out / store.INFO).is_file():
        info = store.read_info(out)
        logs = read_source(config.source)
        if info["settings"] == _settings(config) and info["files"] == _files(logs):
            return store.load(out)
    return prepare(config.source, out, config)


def prepare(source: str | Path, out: Path, config: DataConfig) -> Dataset:
    """Read `source`, cut and split its sessions as `config` says, write the data set into `out` and load it.

    Raises `DataError` for bad input, saying where, and when nothing is left after a filter, saying which.
    """
    logs = read_source(source)
    template = config.template or logs.template
    get_template(template)
    core, rounds = k_core(logs.interactions, config.min_interactions)
    sessions = cut_windows(in_order(core), config.history_length, config.windows)
    if sessions.is_empty():
        raise DataError(
            f"No user has {config.history_length + 1} interactions with different items, so there is no session. "
            "Lower data.history_length, or bring more data."
        )
    items = _items(logs.items, core)
    sessions = _with_indexes(sessions, items)
    windows = sessions["window"].to_numpy()
    sessions = sessions.with_columns(split=pl.Series(split_sessions(windows, config.split, config.seed)))
    info = {
        "source": str(source),
        "template": template,
        "settings": _settings(config),
        "files": _files(logs),
        "raw": _count(logs.interactions),
        "filters": rounds,
        "kept": _count(core),
        "sessions": {"total": len(sessions), **_split_counts(sessions)},
        "leakage": _leakage(sessions),
    }
    store.save(out, items, sessions.drop("window", "timestamp"), info)
    return store.load(out)


def _settings(config: DataConfig) -> dict[str, Any]:
    return config.model_dump(exclude={"source", "max_sessions"}, exclude_none=True)


def _files(logs: Logs) -> dict[str, str]:
    return {path.name: store.file_hash(path) for path in logs.files}


def _count(interactions: pl.DataFrame) -> dict[str, int]:
    return {
        "users": interactions["user_id"].n_unique(),
        "items": interactions["item_id"].n_unique(),
        "interactions": len(interactions),
    }


def _split_counts(sessions: pl.DataFrame) -> dict[str, int]:
    return {split: sessions.filter(split=split).height for split in ("train", "validation", "test")}


def _items(items: pl.DataFrame, core: pl.DataFrame) -> pl.DataFrame:
    """The items that survive, in the order of the source, each with a title and its mean rating in the source."""
    ratings = core.group_by("item_id").agg(average_rating=pl.col("rating").mean())
    first_words = pl.col("description").str.split(" ").list.head(UNTITLED_WORDS).list.join(" ") + "..."
    untitled = pl.format("Untitled ({})", pl.col("categories").list.join(", "))
    return items.join(ratings, on="item_id", maintain_order="left").with_columns(
        title=pl.coalesce("title", first_words, untitled)
    )


def _with_indexes(sessions: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Sessions with item indexes in place of ids, history and target apart."""
    index = {item_id: i for i, item_id in enumerate(items["item_id"])}
    rows = np.array([[index[item] for item in row] for row in sessions["item_id"].to_list()], dtype=np.int32)
    return sessions.select(
        session_id=pl.int_range(pl.len(), dtype=pl.Int64),
        user_id="user_id",
        history=pl.Series(rows[:, :-1].tolist(), dtype=pl.List(pl.Int32)),
        target=pl.Series(rows[:, -1]),
        history_ratings=pl.col("rating").list.head(rows.shape[1] - 1).list.eval(pl.element().fill_null(float("nan"))),
        history_reviews=pl.col("review_text").list.head(rows.shape[1] - 1),
        window="window",
        timestamp="timestamp",
    )


def _leakage(sessions: pl.DataFrame) -> dict[str, float | int]:
    items = np.column_stack([np.array(sessions["history"].to_list()), sessions["target"].to_numpy()])
    times = None
    if sessions["timestamp"].list.eval(pl.element().is_not_null()).list.all().all():
        times = np.array(sessions["timestamp"].to_list())
    return leakage(sessions["user_id"].to_list(), items, times, sessions["split"].to_list())
