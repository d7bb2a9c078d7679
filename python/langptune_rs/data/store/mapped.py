"""Arrow files that are made of the parquet files of a data set and mapped into memory.

They are in `arrow/`, named by the hashes of the parquet files, and can be deleted at any time. The parquet files are
exchanged between machines, and have to be checked: for items given twice, for items that are not in the catalog, for
histories of several lengths. This is done here, once. Opening the Arrow files reads no row, and all processes of a
machine share their pages.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from langptune_rs.data.store.catalog import Catalog
from langptune_rs.data.store.columns import Labels, TextColumn, TextLists, folded_order
from langptune_rs.data.store.sessions import SPLITS, Sessions
from langptune_rs.data.store.tables import open_parquet, read_parquet, scan_parquet
from langptune_rs.data.wording.templates import Item, Template
from langptune_rs.errors import DataError
from langptune_rs.files import write_atomically

ARROW = "arrow"
_LAYOUT = 1
"""A part of the files' names, so that files of another layout are not read."""
_NAMES = ("items", "sessions", "reviews")

_ITEM_SCHEMA = pa.schema(
    [pa.field(name, pa.large_string(), nullable=False) for name in ("item_id", "title", "text", "line")]
    + [pa.field(name, pa.int32(), nullable=False) for name in ("item_id_order", "title_order")]
)


@dataclass(frozen=True)
class Tables:
    """The content of the mapped files."""

    catalog: Catalog
    sessions: Sessions
    has_ratings: bool
    """Whether any interaction has a rating."""


def open_tables(folder: Path, hashes: Mapping[str, str]) -> Tables | None:
    """The mapped tables of the parquet files with these hashes. None where a file is missing or cut off."""
    try:
        return _tables(**{name: _map(path, name) for name, path in _paths(folder, hashes).items()})
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return None


def table_files(folder: Path, hashes: Mapping[str, str]) -> list[Path]:
    """The files of `open_tables`, whether they are there or not."""
    return list(_paths(folder, hashes).values())


def write_tables(folder: Path, items: Path, sessions: Path, hashes: Mapping[str, str], *, distinct: bool) -> None:
    """Make the Arrow files of two parquet files, and delete Arrow files of other parquet files.

    With `distinct` a session that repeats an item in its history is refused. Several processes may do this at once.
    Raises `DataError` for sessions that cannot be used, and `OSError` where the files cannot be written.
    """
    paths = _paths(folder, hashes)
    writers = _writers(items, sessions, distinct)

    def make(name: str) -> None:
        write_atomically(paths[name], lambda path: writers[name](str(path.absolute())))

    with ThreadPoolExecutor() as pool:
        list(pool.map(make, writers))  # raises what the first of them to fail has raised
    for old in set((folder / ARROW).glob("*.arrow")) - set(paths.values()):
        old.unlink(missing_ok=True)


def make_tables(items: Path, sessions: Path, *, distinct: bool) -> Tables:
    """As `write_tables`, but in the memory of this process."""
    made = {}
    for name, write in _writers(items, sessions, distinct).items():
        memory = pa.BufferOutputStream()
        write(memory)
        made[name] = memory.getvalue()
    return _tables(**made)


def _paths(folder: Path, hashes: Mapping[str, str]) -> dict[str, Path]:
    """The files in the order in which they are written."""
    key = hashlib.sha256(repr((_LAYOUT, sorted(hashes.items()))).encode()).hexdigest()[:16]
    return {name: folder / ARROW / f"{name}-{key}.arrow" for name in _NAMES}


def _map(path: Path, name: str) -> mmap.mmap:
    """A file as memory. It is read-only, except that this process may change its own view of the numbers."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY if name == "sessions" else mmap.ACCESS_READ)


def _tables(items: Any, sessions: Any, reviews: Any) -> Tables:
    """The tables of three files, given as anything with the buffer protocol."""
    texts, numbers, written = (_read(source) for source in (items, sessions, reviews))
    return Tables(
        Catalog(
            item_ids=TextColumn(texts["item_id"], order=texts["item_id_order"]),
            titles=TextColumn(texts["title"], order=texts["title_order"]),
            texts=TextColumn(texts["text"]),
            lines=TextColumn(texts["line"]),
        ),
        Sessions(
            session_ids=_numbers(sessions, numbers["session_id"], np.int64),
            user_ids=TextColumn(numbers["user_id"]),
            histories=_numbers(sessions, numbers["history"], np.int32),
            ratings=_numbers(sessions, numbers["ratings"], np.float32),
            reviews=TextLists(written["reviews"]),
            targets=_numbers(sessions, numbers["target"], np.int32),
            splits=Labels(SPLITS, _numbers(sessions, numbers["split"], np.uint8)),
        ),
        has_ratings=numbers.schema.metadata[b"has_ratings"] == b"True",
    )


def _read(source: Any) -> pa.Table:
    """The table in the bytes of an Arrow file. Nothing is copied, and no thread is used, so that a fork can do it."""
    return pa.ipc.open_file(pa.py_buffer(source), options=pa.ipc.IpcReadOptions(use_threads=False)).read_all()


def _numbers(source: Any, column: pa.ChunkedArray, dtype: type) -> np.ndarray:
    """A column of numbers (n,), or of lists of one length (n, length), as a read-only view of `source`.

    The view is not one of Arrow's own buffer, which can never be made writable. A tensor needs writable memory.
    """
    (array,) = column.chunks
    buffer = array.buffers()[-1]
    shape = (len(array), array.type.list_size) if pa.types.is_fixed_size_list(array.type) else (len(array),)
    offset = buffer.address - pa.py_buffer(source).address
    view = np.frombuffer(source, dtype, count=int(np.prod(shape)), offset=offset).reshape(shape)
    view.flags.writeable = False
    return view


def _writers(items: Path, sessions: Path, distinct: bool) -> dict[str, Callable[[Any], None]]:
    """For each file the function that writes it to a path or an Arrow stream."""
    return {
        "items": lambda sink: _guarded(items, lambda: _write_items(items, sink)),
        "sessions": lambda sink: _guarded(sessions, lambda: _write_sessions(items, sessions, distinct, sink)),
        "reviews": lambda sink: _guarded(sessions, lambda: _write_reviews(sessions, sink)),
    }


def _guarded(path: Path, write: Callable[[], None]) -> None:
    try:
        write()
    except (pl.exceptions.PolarsError, pa.ArrowException, UnicodeError) as error:
        raise DataError(
            f"{path} cannot be read: {str(error).splitlines()[0]}. Prepare it again with --overwrite."
        ) from error


def _write_items(path: Path, sink: Any) -> None:
    """Write one record batch per row group, so that only the texts of one row group are in memory."""
    ids = read_parquet(path, columns=["item_id"])["item_id"]
    _refuse_missing_or_repeated(ids, path)
    titles = pl.Series(_titles(path), dtype=pl.String)
    whole = {
        "item_id": _to_arrow(ids),
        "title": _to_arrow(titles),
        "item_id_order": pa.array(folded_order(ids)),
        "title_order": pa.array(folded_order(titles)),
    }
    start = 0
    with open_parquet(path) as file, pa.ipc.new_file(sink, _ITEM_SCHEMA) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["text", "line"])
            columns = {name: array.slice(start, len(table)) for name, array in whole.items()}
            for name in ("text", "line"):
                if table[name].null_count:
                    raise DataError(f"{path}: an item has no {name}. Prepare it again with --overwrite.")
                columns[name] = table[name].cast(pa.large_string()).combine_chunks()
            writer.write_batch(pa.record_batch([columns[name] for name in _ITEM_SCHEMA.names], schema=_ITEM_SCHEMA))
            start += len(table)


def _titles(path: Path) -> list[str]:
    """The title of each item, or the first words of its description if it has no title."""
    titles = read_parquet(path, columns=["title"])["title"].to_list()
    untitled = scan_parquet(path).with_row_index("row").filter(pl.col("title").fill_null("") == "")
    for row, *fields in untitled.select("row", "title", "description", "categories").collect().iter_rows():
        titles[row] = Template.item_title(Item(*fields))
    return titles


def _write_sessions(items: Path, path: Path, distinct: bool, sink: Any) -> None:
    """Write everything but the reviews in one record batch, so that each column is one array."""
    table = read_parquet(path, columns=["session_id", "user_id", "history", "ratings", "target", "split"])
    _refuse_missing_or_repeated(table["session_id"], path)
    lengths = table.select(pl.col("history", "ratings").list.len())
    length = lengths.select(pl.col("history").max()).item() or 0
    if not length or not lengths.select(pl.all_horizontal((pl.all() == length).fill_null(False).all())).item():
        raise DataError(f"{path}: histories, ratings and reviews are not all lists of one length.")
    unknown_splits = table.filter(~pl.col("split").is_in(SPLITS).fill_null(False))["split"]
    if len(unknown_splits):
        raise DataError(f"{path}: {unknown_splits[0]!r} is not a split. Splits are {', '.join(SPLITS)}.")
    if table["user_id"].null_count():
        raise DataError(f"{path}: a session has no user_id.")
    ids = read_parquet(items, columns=["item_id"])["item_id"]
    histories = _indexes(table["history"].explode(), ids, path)
    targets = _indexes(table["target"], ids, path)
    history_rows = histories.reshape(-1, length)
    repeats = (history_rows == targets[:, None]).any(axis=1)
    if distinct:
        in_order = np.sort(history_rows, axis=1)
        repeats |= (in_order[:, 1:] == in_order[:, :-1]).any(axis=1)
    if repeats.any():
        raise DataError(f"{path}: the session {table['session_id'][int(repeats.argmax())]} holds an item twice.")
    ratings = table["ratings"].explode().cast(pl.Float32).fill_null(float("nan")).to_numpy()
    split_codes = table["split"].replace_strict(SPLITS, range(len(SPLITS)), return_dtype=pl.UInt8)
    columns = {
        "session_id": pa.array(table["session_id"].to_numpy()),
        "user_id": _to_arrow(table["user_id"]),
        "history": pa.FixedSizeListArray.from_arrays(pa.array(histories), length),
        "ratings": pa.FixedSizeListArray.from_arrays(pa.array(ratings), length),
        "target": pa.array(targets),
        "split": pa.array(split_codes.to_numpy()),
    }
    batch = pa.record_batch(columns).replace_schema_metadata({"has_ratings": str(not np.isnan(ratings).all())})
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _write_reviews(path: Path, sink: Any) -> None:
    """Write one record batch per row group. Each row is a list as long as the session's history."""
    schema = pa.schema({"reviews": TextLists.TYPE})
    with open_parquet(path) as file, pa.ipc.new_file(sink, schema) as writer:
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=["history", "reviews"])
            reviews = table["reviews"].cast(TextLists.TYPE).combine_chunks()
            same = pc.equal(pc.list_value_length(table["history"]), pc.list_value_length(table["reviews"]))
            if reviews.null_count or not pc.all(same, min_count=0).as_py():
                raise DataError(f"{path}: histories, ratings and reviews are not all lists of one length.")
            writer.write_batch(pa.record_batch([reviews], schema=schema))


def _refuse_missing_or_repeated(ids: pl.Series, path: Path) -> None:
    if ids.null_count():
        raise DataError(f"{path}: a row has no {ids.name}.")
    if ids.is_duplicated().any():
        raise DataError(f"{path}: the {ids.name} {ids.filter(ids.is_duplicated())[0]!r} is there twice.")


def _indexes(item_ids: pl.Series, catalog_ids: pl.Series, path: Path) -> np.ndarray:
    """The place of each id in the catalog, int32 (n,)."""
    indexes = item_ids.replace_strict(catalog_ids, range(len(catalog_ids)), default=None, return_dtype=pl.Int32)
    if indexes.null_count():
        unknown = item_ids.filter(indexes.is_null())[0]
        raise DataError(f"{path}: a session has the item {unknown!r}, which is not in items.parquet.")
    return indexes.to_numpy()


def _to_arrow(texts: pl.Series) -> pa.Array:
    return texts.to_arrow(compat_level=pl.CompatLevel.oldest()).cast(pa.large_string())
