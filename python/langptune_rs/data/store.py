"""A prepared data set on disk: items.parquet, sessions.parquet and dataset.toml."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import tomli_w

from langptune_rs.data.catalog import Catalog, Dataset, Sessions
from langptune_rs.data.templates import get_template
from langptune_rs.errors import DataError
from langptune_rs.files import write_atomically, write_text

ITEMS, SESSIONS, INFO = "items.parquet", "sessions.parquet", "dataset.toml"


def file_hash(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(folder: Path, items: pl.DataFrame, sessions: pl.DataFrame, info: dict[str, Any]) -> None:
    """Write a data set. dataset.toml comes last and holds the hashes of the other two, so a folder that was not
    finished, or whose files were changed later, is recognised."""
    write_atomically(folder / ITEMS, items.write_parquet)
    write_atomically(folder / SESSIONS, sessions.write_parquet)
    hashes = {name: file_hash(folder / name) for name in (ITEMS, SESSIONS)}
    write_text(folder / INFO, tomli_w.dumps({**info, "hashes": hashes}))


def read_info(folder: Path) -> dict[str, Any]:
    """The content of dataset.toml. Raises `DataError` when `folder` holds no prepared data set."""
    if not (folder / INFO).is_file():
        raise DataError(
            f"{folder} holds no prepared data set: there is no {INFO} in it. "
            "Make one with `langptune data prepare SOURCE OUT`."
        )
    return tomllib.loads((folder / INFO).read_text(encoding="utf-8"))


def load(folder: str | Path) -> Dataset:
    """The data set in a folder that `prepare` wrote.

    Raises `DataError` when a file is missing or is not the one that was written, an item comes twice, or a session
    names an item that the catalog does not hold.
    """
    folder = Path(folder)
    info = read_info(folder)
    for name, expected in info["hashes"].items():
        if not (folder / name).is_file() or file_hash(folder / name) != expected:
            raise DataError(
                f"{folder / name} is missing or was changed since {INFO} was written. Prepare the data set again."
            )
    items = pl.read_parquet(folder / ITEMS)
    if items["item_id"].is_duplicated().any():
        twice = items.filter(pl.col("item_id").is_duplicated())["item_id"][0]
        raise DataError(f"{folder / ITEMS}: the item {twice!r} is there more than once.")
    sessions = pl.read_parquet(folder / SESSIONS)
    largest = max(sessions["history"].list.max().max(), sessions["target"].max())
    if largest >= len(items):
        raise DataError(f"{folder / SESSIONS}: a session holds item {largest}, but {ITEMS} has {len(items)} items.")
    template = get_template(info["template"])
    return Dataset(_catalog(items, template), _sessions(sessions), template, info)


def _catalog(items: pl.DataFrame, template) -> Catalog:
    titles = items["title"].to_list()
    texts = [
        template.item(row["title"], row["description"], row["categories"], row["price"], row["average_rating"])
        for row in items.iter_rows(named=True)
    ]
    return Catalog(items["item_id"].to_list(), titles, texts)


def _sessions(table: pl.DataFrame) -> Sessions:
    return Sessions(
        session_ids=table["session_id"].to_numpy().astype(np.int64),
        user_ids=table["user_id"].to_list(),
        histories=np.array(table["history"].to_list(), dtype=np.int32),
        ratings=np.array(table["history_ratings"].to_list(), dtype=np.float32),
        reviews=table["history_reviews"].to_list(),
        targets=table["target"].to_numpy().astype(np.int32),
        splits=table["split"].to_list(),
    )
