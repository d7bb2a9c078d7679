"""RecBole's atomic files, `NAME.item` and `NAME.inter`: tabs between fields, `name:type` in the first line.

A column is read from the field that the column map names, or from the first of its `NAMES` that the file has, in upper
or lower case. `token_seq` fields are split at spaces. A release year is put behind a title without a year.

Interactions that RecBole has divided (`NAME.train.inter`, `NAME.valid.inter`, `NAME.test.inter`) are read as one log.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import polars as pl

from langptune_rs.data.readers.computed import Computed
from langptune_rs.data.readers.form import Form, missing_column, read_header
from langptune_rs.data.readers.joined import joined
from langptune_rs.data.readers.reader import Reader
from langptune_rs.data.readers.separated import SeparatedFile
from langptune_rs.data.readers.values import INTERACTION_KINDS, ITEM_KINDS, Fields, Kind
from langptune_rs.data.sources.files import Files, RawLogs

FILES = (
    "NAME.item and NAME.inter (or NAME.train.inter, NAME.valid.inter and NAME.test.inter), RecBole's atomic files; "
    "--column title=app_name for the names of other columns"
)

NAMES = {
    "user_id": ("user_id",),
    "item_id": ("item_id",),
    "title": ("title", "movie_title", "item_title", "name", "item_name", "app_name", "product_name"),
    "description": ("description", "overview", "plot", "summary"),
    "categories": ("categories", "category", "genres", "genre", "class", "tags"),
    "price": ("price",),
    "average_rating": ("average_rating", "avg_rating"),
    "year": ("release_year", "year"),
    "rating": ("rating", "overall", "stars"),
    "timestamp": ("timestamp", "time"),
    "position": ("position",),
    "review_text": ("review_text", "review", "text"),
}
"""Column -> the names it may have. `year` becomes a part of the title."""

_PARTS = ("train", "valid", "test")
_INTER = re.compile(r"\.inter(?:\.gz)?$")
_PART = re.compile(r"(.*)\.(train|valid|test)\.inter(?:\.gz)?", re.DOTALL)
"""A part of a divided log, with the log's name and the part's."""


def open_logs(files: Files) -> RawLogs:
    """The files. Raises `DataError` when one is missing, or lacks an id or a mapped column."""
    items = files.find("items", "recbole", "*.item")
    parts = divided_log(files) or [files.find("interactions", "recbole", "*.inter")]
    described = open_atomic(items, _choose(items, files, ITEM_KINDS | {"year": "text"}))
    reader: Reader = described
    if "year" in described.fields:
        reader = Computed(described, {"title": (("title", "year"), with_year)})
    logs = [open_atomic(part, _choose(part, files, INTERACTION_KINDS)) for part in parts]
    return RawLogs(reader, joined(logs), template="generic", others=further(parts))


def divided_log(files: Files) -> list[Path]:
    """The files of the one log in a folder that RecBole has divided, in the order of time. None if there is another.

    Says once on stderr that they are read as one.
    """
    if files.folder is None or files.interactions is not None:
        return []
    there = [path for path in files.folder.iterdir() if path.is_file() and _INTER.search(path.name)]
    found = sorted((_PARTS.index(match[2]), path) for path in there if (match := _PART.fullmatch(path.name)))
    names = {_PART.sub(r"\1", path.name) for _, path in found}
    if len(names) != 1 or len(found) != len(there) or len(found) != len({part for part, _ in found}):
        return []
    if len(found) > 1:
        _say(" and ".join(path.name for _, path in found))
    return [path for _, path in found]


def further(parts: Sequence[Path]) -> dict[str, Path]:
    """The files of a divided log behind the first, by what they are."""
    return {f"interactions {number}": part for number, part in enumerate(parts[1:], start=2)}


@cache
def _say(names: str) -> None:
    print(
        f"{names} are read as one log. They divide interactions; the sessions cut of them are divided by --split.",
        file=sys.stderr,
    )


def open_atomic(file: Path, fields: Fields) -> SeparatedFile:
    """An atomic file. Raises `DataError` if it lacks one of the names in `fields`."""
    names = atomic_names(file)
    for name, _ in fields.values():
        if name not in names:
            raise missing_column(file, name, names)
    return SeparatedFile(file, Form(tuple(names), "\t", has_quotes=False), fields)


def atomic_names(file: Path) -> dict[str, str]:
    """Name -> type of each column of a file."""
    return {name: kind for name, _, kind in (part.strip().partition(":") for part in read_header(file).split("\t"))}


def with_year(title: pl.Expr, year: pl.Expr) -> pl.Expr:
    """ "Toy Story (1995)": a title with its year behind it, unless it ends with a year or `year` is not one."""
    wanted = (title != "") & year.str.contains(r"^\d{4}$") & ~title.str.contains(r"\(\d{4}\)$")
    return pl.when(wanted).then(title + " (" + year + ")").otherwise(title)


def _choose(file: Path, files: Files, kinds: dict[str, Kind]) -> dict[str, tuple[str, Kind]]:
    """The fields that `file` has. Raises `DataError` as `open_logs` does."""
    types = atomic_names(file)
    by_lower_case = {name.lower(): name for name in reversed(types)}
    fields = {}
    for column, kind in kinds.items():
        mapped = files.columns.get(column)
        name = mapped or next((by_lower_case[name] for name in NAMES[column] if name in by_lower_case), None)
        if name is None and kind == "identifier":
            name = NAMES[column][0]
        if name is not None:
            is_sequence = kind == "texts" and types.get(name) == "token_seq"
            fields[column] = (name, "words" if is_sequence else kind)
    return fields
