"""A prepared data set on disk: `items.parquet`, `sessions.parquet`, and `dataset.toml`, which is written last.

A folder without `dataset.toml` is half-written, and is not read. Sessions name their items by id, so that their meaning
does not depend on the order of rows in `items.parquet`. `arrow/` is made of these files for one machine: see `mapped`.
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from langptune_rs.config.data import make_config
from langptune_rs.config.toml import is_beyond_toml
from langptune_rs.data.store.catalog import Catalog
from langptune_rs.data.store.content import written_content
from langptune_rs.data.store.dataset import Dataset
from langptune_rs.data.store.mapped import ARROW, Tables, make_tables, open_tables, table_files, write_tables
from langptune_rs.data.store.schema import ITEM_COLUMNS, ITEM_FIELDS, SESSION_COLUMNS
from langptune_rs.data.store.tables import explained, read_parquet, write_parquet
from langptune_rs.data.wording.templates import make_template
from langptune_rs.errors import ConfigError, DataError
from langptune_rs.files import file_hash, write_atomically, write_text

ITEMS, SESSIONS, INFO = "items.parquet", "sessions.parquet", "dataset.toml"
TEMPLATE = "template.jinja"
"""The user's own template, where the data set was made with one."""
FILES = (ITEMS, SESSIONS, TEMPLATE)
"""The files of a data set whose hashes are in `dataset.toml`."""
LOCK = ".lock"
"""The lock of the process that prepares the data set. It has the number of the process."""
OWN = (INFO, *FILES, ARROW, LOCK)
"""Everything in the folder of a data set. The file that marks a data set as whole comes first."""
FORMAT = 2
_CHECKED = "checked.json"
_UNFINISHED = ".unfinished.tmp"
"""The folder in which a data set is written."""
_ROWS_PER_GROUP = 65_536
"""Rows of a parquet file that a reader has in memory at a time: about 64 MB of texts."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def save(
    folder: Path,
    items: pl.DataFrame,
    sessions: pl.DataFrame,
    info: dict[str, Any],
    template_source: str | None = None,
) -> None:
    """Write a data set, so that `folder` holds a whole data set or none whenever this stops.

    A data set that was there before stays until the new one is whole. `template_source` is the text of the user's own
    template file, where one was used. Raises `DataError` for sessions that cannot be used, as `load` does, and when the
    files cannot be written. `folder` is then as it was.
    """
    items = items.select(ITEM_COLUMNS.keys()).cast(ITEM_COLUMNS)
    sessions = sessions.select(SESSION_COLUMNS.keys()).cast(SESSION_COLUMNS)
    is_new = not folder.exists()
    unfinished = folder / _UNFINISHED
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(unfinished, ignore_errors=True)
        for left_over in folder.glob(".*.tmp"):
            left_over.unlink()
        unfinished.mkdir()
        if template_source is not None:
            write_text(unfinished / TEMPLATE, template_source)

        def written(name: str) -> str:
            """Write a file to `unfinished`, and return its hash."""
            table = {ITEMS: items, SESSIONS: sessions}.get(name)
            if table is not None:
                write_atomically(unfinished / name, partial(write_parquet, table, row_group_size=_ROWS_PER_GROUP))
            return file_hash(unfinished / name)

        names = [name for name in FILES if name != TEMPLATE or template_source is not None]
        with ThreadPoolExecutor() as pool:
            hashes = dict(zip(names, pool.map(written, names), strict=True))
        info = {"format": FORMAT, **info, "sha256": hashes}
        tables = _make_tables(unfinished, info)
        info |= {"content": written_content(tables.catalog, tables.sessions, hashes)}
        write_text(unfinished / INFO, _to_toml(info))
        _clear(folder)
        for name in reversed(OWN):  # the file that marks the data set as whole comes last
            if (unfinished / name).exists():
                (unfinished / name).rename(folder / name)
        with suppress(OSError):  # a new name is a change; without this note the hashes are checked once more
            _write_stamps(folder, _stamps(folder, hashes | _mapped_hashes(folder, hashes)))
    except (OSError, pl.exceptions.PolarsError) as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
        if is_new and folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def cannot_write(folder: Path, error: Exception) -> DataError:
    """Return the error for a data set that cannot be written to `folder`."""
    return DataError(
        f"The data set cannot be written to {folder}: {str(error).splitlines()[0]}. "
        "Nothing of it is left there. Make room, or choose another folder, and prepare it again."
    )


def is_prepared(folder: Path) -> bool:
    """Whether `folder` holds a whole data set."""
    return (folder / INFO).is_file()


def load(path: str | Path) -> Dataset:
    """Open a prepared data set without reading its rows, which come from mapped files when they are used.

    The mapped files are made where they are missing or have changed, in memory if they cannot be written. The hashes
    are checked when the size or a time of change of a file differs from the last check. `save` does the first check.

    Raises `DataError` when a file is missing or has changed since it was written, and for sessions that cannot be used:
    an unknown item, an id given twice, items that are not distinct, histories of several lengths.
    """
    folder = Path(path)
    info = read_info(folder)
    hashes = info["sha256"]
    for name in (ITEMS, SESSIONS, *hashes):
        if not (folder / name).is_file():
            raise DataError(f"{folder} lacks {name}. Prepare it again with --overwrite.")
    tables = open_tables(folder, _table_hashes(hashes)) if _is_checked(folder, hashes) else None
    if tables is None:
        _check(folder, hashes)
        try:
            tables = _make_tables(folder, info)
        except OSError:
            tables = make_tables(folder / ITEMS, folder / SESSIONS, distinct=_is_distinct(info))
    template = make_template(
        info["config"]["template"],
        has_ratings=tables.has_ratings,
        has_reviews=tables.sessions.reviews.has_any,
        source=template_source(folder, info),
    )
    return Dataset(tables.catalog, tables.sessions, template, info)


def read_item_fields(folder: Path, catalog: Catalog) -> pl.DataFrame:
    """The columns of `ITEM_FIELDS` of the prepared data set in `folder`, one row for each item in the catalog's order.

    Raises `DataError` for a file that cannot be read.
    """
    with explained(folder / ITEMS):
        fields = read_parquet(folder / ITEMS, list(ITEM_FIELDS))
    order = pl.DataFrame({"item_id": catalog.item_ids.to_list()})
    return order.join(fields, on="item_id", how="left", maintain_order="left")


def template_source(folder: Path, info: dict[str, Any]) -> str | None:
    """The text of the user's own template that a data set was made with. None for a built-in template."""
    return (folder / TEMPLATE).read_text(encoding="utf-8") if TEMPLATE in info["sha256"] else None


def _clear(folder: Path) -> None:
    """Delete the data set in `folder`. The file that marks it as whole goes first."""
    for name in (INFO, *FILES):
        (folder / name).unlink(missing_ok=True)
    if (folder / ARROW).is_dir():
        shutil.rmtree(folder / ARROW)


def _make_tables(folder: Path, info: Mapping[str, Any]) -> Tables:
    """Make the mapped files where they are missing or have changed, and write down which files were checked."""
    hashes = info["sha256"]
    stamps = _stamps(folder, hashes)
    mapped = _mapped_hashes(folder, hashes)
    if not mapped or any(file_hash(folder / name) != sha256 for name, sha256 in mapped.items()):
        write_tables(folder, folder / ITEMS, folder / SESSIONS, _table_hashes(hashes), distinct=_is_distinct(info))
        files = table_files(folder, _table_hashes(hashes))
        mapped = {str(file.relative_to(folder)): file_hash(file) for file in files}
    tables = open_tables(folder, _table_hashes(hashes))
    if tables is None:
        raise OSError(f"the files in {folder / ARROW} cannot be mapped")
    with suppress(OSError):  # without this note the hashes are checked each time
        _write_stamps(folder, stamps | _stamps(folder, mapped))
    return tables


def _is_distinct(info: Mapping[str, Any]) -> bool:
    """Whether all items of a session must differ. With compat "reference" only the target must."""
    return bool(info["config"].get("compat") != "reference")


def _table_hashes(hashes: Mapping[str, str]) -> dict[str, str]:
    return {name: hashes[name] for name in (ITEMS, SESSIONS)}


def _check(folder: Path, hashes: Mapping[str, str]) -> None:
    """Raise `DataError` for a file whose hash is not the one in `dataset.toml`."""
    for name, wanted in hashes.items():
        if file_hash(folder / name) != wanted:
            raise DataError(f"{folder / name} has changed since {INFO} was written. Prepare it again with --overwrite.")


def _is_checked(folder: Path, hashes: Mapping[str, str]) -> bool:
    """Whether each file has the size and the times of change that it had when its hash was last checked."""
    mapped = _mapped_hashes(folder, hashes)
    return bool(mapped) and _noted(folder) == _stamps(folder, {**hashes, **mapped})


def _mapped_hashes(folder: Path, hashes: Mapping[str, str]) -> dict[str, str]:
    """The hashes of the mapped files, as they were made. Empty where one is not known, or its file is not there."""
    noted, mapped = _noted(folder), {}
    for file in table_files(folder, _table_hashes(hashes)):
        name = str(file.relative_to(folder))
        stamp = noted.get(name)
        if not isinstance(stamp, dict) or not isinstance(stamp.get("sha256"), str) or not file.is_file():
            return {}
        mapped[name] = stamp["sha256"]
    return mapped


def _noted(folder: Path) -> dict[str, Any]:
    """What `_write_stamps` wrote. Empty where it cannot be read."""
    try:
        noted = json.loads((folder / ARROW / _CHECKED).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return noted if isinstance(noted, dict) else {}


_Stamps = dict[str, dict[str, str | int]]


def _stamps(folder: Path, hashes: Mapping[str, str]) -> _Stamps:
    """What tells a file from another one. Whoever copies a file may keep its mtime, but not its ctime."""
    stats = {name: (folder / name).stat() for name in hashes}
    return {
        name: {
            "sha256": hashes[name],
            "size": stat.st_size,
            "mtime_ns": stat.st_mtime_ns,
            "ctime_ns": stat.st_ctime_ns,
        }
        for name, stat in stats.items()
    }


def _write_stamps(folder: Path, stamps: _Stamps) -> None:
    write_text(folder / ARROW / _CHECKED, json.dumps(stamps, indent=1) + "\n")


def read_info(folder: Path) -> dict[str, Any]:
    """The content of `dataset.toml`. Raises `DataError` when `folder` holds no whole data set."""
    if not is_prepared(folder):
        raise DataError(
            f"{folder} holds no prepared data set: there is no {INFO} in it. "
            "Write one with `langptune data prepare SOURCE OUT`."
        )
    try:
        info = tomllib.loads((folder / INFO).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{folder / INFO} is not valid TOML: {error or type(error).__name__}. Prepare it again with --overwrite."
        ) from error
    if info.get("format") != FORMAT or not {"sha256", "config", "source"} <= info.keys():
        raise DataError(
            f"{folder / INFO} has format {info.get('format')}, this version reads {FORMAT}. "
            "Prepare it again with --overwrite."
        )
    if fault := _fault(info):
        raise DataError(f"{folder / INFO} {fault}: it is damaged. Prepare it again with --overwrite.")
    return info


_COUNTS = ("removed", "leakage", "sessions", "kept", "published")
"""Tables of numbers in `dataset.toml`, of which a data set has some."""
_OF_A_STEP = {"step": str, "users": int, "items": int, "interactions": int}


def _fault(info: Mapping[str, Any]) -> str | None:
    """What is wrong with the content of a `dataset.toml`, as what follows its name in a sentence; None for nothing."""
    for name in ("sha256", "config", "source", "tokenizers", "content", *_COUNTS):
        if not isinstance(info.get(name, {}), dict):
            return f"has {name} as no table"
    if is_beyond_toml(info):
        return "has a whole number of more than 64 bits"
    hashes = info["sha256"]
    if not {ITEMS, SESSIONS} <= hashes.keys() <= set(FILES) or not all(isinstance(x, str) for x in hashes.values()):
        return f"has other files in sha256 than {', '.join(FILES)}"
    if not isinstance(info["source"].get("name"), str):
        return "has no source.name"
    if not isinstance(info["config"].get("template"), str):
        return "has no config.template"
    try:
        make_config(**info["config"])
    except (ConfigError, TypeError) as error:
        return f"has a config that no data set is made with ({error})"
    if not all(isinstance(number, int) for name in _COUNTS for number in info.get(name, {}).values()):
        return f"has a value in {', '.join(name for name in _COUNTS if name in info)} that is no number"
    steps = info.get("filters", [])
    if not isinstance(steps, list) or not all(
        isinstance(step, dict) and all(isinstance(step.get(key), kind) for key, kind in _OF_A_STEP.items())
        for step in steps
    ):
        return "has a step in filters without its counts"
    return None


def _to_toml(table: Mapping[str, Any], path: str = "") -> str:
    """`table` as TOML: values first, then tables and lists of tables."""
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
    return key if _BARE_KEY.fullmatch(key) else _toml_value(key)


def _toml_value(value: str | int) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return repr(value)
