"""A prepared data set on disk: `items.parquet`, `sessions.parquet`, and `dataset.toml`, which is written last.

A folder without `dataset.toml` is half-written and read by nobody. Sessions name their items by id, so that no shift
of rows in `items.parquet` can change what they mean.
"""

from __future__ import annotations

import hashlib
import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from langptune_rs.data.catalog import Catalog
from langptune_rs.data.dataset import Dataset
from langptune_rs.data.sessions import SPLITS, Sessions
from langptune_rs.data.templates import Item, make_template
from langptune_rs.errors import DataError
from langptune_rs.files import write_atomically, write_text

ITEMS, SESSIONS, INFO = "items.parquet", "sessions.parquet", "dataset.toml"
FORMAT = 1
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")

ITEM_COLUMNS = {
    "item_id": pl.String,
    "title": pl.String,
    "description": pl.String,
    "categories": pl.List(pl.String),
    "price": pl.String,
    "average_rating": pl.Float64,
}
SESSION_COLUMNS = {
    "session_id": pl.Int64,
    "user_id": pl.String,
    "history": pl.List(pl.String),
    "ratings": pl.List(pl.Float32),
    "reviews": pl.List(pl.String),
    "target": pl.String,
    "target_timestamp": pl.Float64,
    "split": pl.String,
}


def save(folder: Path, items: pl.DataFrame, sessions: pl.DataFrame, info: dict[str, Any]) -> None:
    """Write a data set, so that whenever this stops `folder` holds a whole one or none."""
    (folder / INFO).unlink(missing_ok=True)
    write_atomically(folder / ITEMS, items.select(ITEM_COLUMNS.keys()).cast(ITEM_COLUMNS).write_parquet)
    write_atomically(folder / SESSIONS, sessions.select(SESSION_COLUMNS.keys()).cast(SESSION_COLUMNS).write_parquet)
    hashes = {name: file_hash(folder / name) for name in (ITEMS, SESSIONS)}
    write_text(folder / INFO, _to_toml({"format": FORMAT, **info, "sha256": hashes}))


def is_prepared(folder: Path) -> bool:
    """Whether `folder` holds a whole data set."""
    return (folder / INFO).is_file()


def load(path: str | Path) -> Dataset:
    """Read a prepared data set.

    Raises `DataError` when a file is missing or changed since it was written, and for sessions that cannot be used:
    an unknown item, an id given twice, items that are not distinct, histories of several lengths.
    """
    folder = Path(path)
    info = read_info(folder)
    for name in (ITEMS, SESSIONS):
        if not (folder / name).is_file():
            raise DataError(f"{folder} lacks {name}. Prepare the data set again.")
        if file_hash(folder / name) != info["sha256"].get(name):
            raise DataError(f"{folder / name} has changed since {INFO} was written. Prepare the data set again.")
    items = _read(folder / ITEMS, ITEM_COLUMNS)
    sessions = _read(folder / SESSIONS, SESSION_COLUMNS)
    _refuse_repeats(items["item_id"], folder / ITEMS)
    _refuse_repeats(sessions["session_id"], folder / SESSIONS)
    template = make_template(
        info["config"]["template"],
        has_ratings=_any_known(sessions["ratings"]),
        has_reviews=_any_known(sessions["reviews"]),
    )
    fields = [Item(*row) for row in items.select(list(ITEM_COLUMNS)[1:]).iter_rows()]
    catalog = Catalog(
        item_ids=items["item_id"].to_list(),
        titles=[template.item_title(item) for item in fields],
        texts=[template.item_text(item) for item in fields],
        lines=[template.item_line(item) for item in fields],
    )
    return Dataset(catalog, _to_sessions(sessions, catalog, folder / SESSIONS), template, info)


def read_info(folder: Path) -> dict[str, Any]:
    """The content of `dataset.toml`. Raises `DataError` when `folder` holds no whole data set."""
    if not is_prepared(folder):
        raise DataError(
            f"{folder} holds no prepared data set: there is no {INFO} in it. "
            "Write one with `langptune data prepare SOURCE OUT`."
        )
    try:
        info = tomllib.loads((folder / INFO).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{folder / INFO} is not valid TOML: {error}. Prepare the data set again.") from error
    if info.get("format") != FORMAT or not {"sha256", "config", "source"} <= info.keys():
        raise DataError(
            f"{folder / INFO} has format {info.get('format')}, this version reads {FORMAT}. Prepare the data set again."
        )
    return info


def file_hash(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path, columns: Mapping[str, Any]) -> pl.DataFrame:
    try:
        return pl.read_parquet(path, columns=list(columns)).cast(columns)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path} cannot be read: {str(error).splitlines()[0]}. Prepare the data set again.") from error


def _refuse_repeats(ids: pl.Series, path: Path) -> None:
    if ids.is_duplicated().any():
        raise DataError(f"{path}: the {ids.name} {ids.filter(ids.is_duplicated())[0]!r} is there twice.")


def _any_known(lists: pl.Series) -> bool:
    return lists.explode().is_not_null().any()


def _to_sessions(table: pl.DataFrame, catalog: Catalog, path: Path) -> Sessions:
    """The arrays of `table`, with item indexes for ids."""
    lengths = table.select(pl.col("history", "ratings", "reviews").list.len())
    length = lengths["history"].max() or 0
    if not length or lengths.select(pl.any_horizontal(pl.all() != length).any()).item():
        raise DataError(f"{path}: histories, ratings and reviews are not all lists of one length.")
    unknown_splits = set(table["split"].unique()) - set(SPLITS)
    if unknown_splits:
        raise DataError(f"{path}: {unknown_splits.pop()!r} is no split. Splits are {', '.join(SPLITS)}.")
    session_ids = table["session_id"].to_numpy()
    histories = _indexes(table["history"].explode(), catalog, path).reshape(-1, length)
    targets = _indexes(table["target"], catalog, path)
    in_order = np.sort(np.column_stack([histories, targets]), axis=1)
    repeats = (in_order[:, 1:] == in_order[:, :-1]).any(axis=1)
    if repeats.any():
        raise DataError(f"{path}: the session {session_ids[repeats.argmax()]} holds an item twice.")
    return Sessions(
        session_ids=session_ids,
        user_ids=table["user_id"].to_list(),
        histories=histories,
        ratings=table["ratings"].explode().fill_null(float("nan")).to_numpy().reshape(-1, length),
        reviews=table["reviews"].to_list(),
        targets=targets,
        splits=table["split"].to_list(),
    )


def _indexes(item_ids: pl.Series, catalog: Catalog, path: Path) -> np.ndarray:
    places = range(len(catalog))
    indexes = item_ids.replace_strict(catalog.item_ids, places, default=None, return_dtype=pl.Int32)
    if indexes.null_count():
        unknown = item_ids.filter(indexes.is_null())[0]
        raise DataError(f"{path}: a session has the item {unknown!r}, which is not in {ITEMS}.")
    return indexes.to_numpy()


def _to_toml(table: Mapping[str, Any], path: str = "") -> str:
    """Values first, then tables and lists of tables."""
    lines = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in table.items() if not _is_nested(value)]
    for key, value in table.items():
        if _is_nested(value):
            name, brackets = f"{path}{key}", "[{}]" if isinstance(value, Mapping) else "[[{}]]"
            parts = [value] if isinstance(value, Mapping) else value
            lines += [f"\n{brackets.format(name)}\n{_to_toml(part, name + '.')}".rstrip("\n") for part in parts]
    return "\n".join(lines) + "\n"


def _is_nested(value: object) -> bool:
    return isinstance(value, Mapping | list)


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key)


def _toml_value(value: str | int) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
