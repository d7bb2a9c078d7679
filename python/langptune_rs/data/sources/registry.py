"""The sources by name, and the source whose files a folder holds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from langptune_rs.data.sources import (
    amazon_2014,
    amazon_2018,
    amazon_2023,
    csv_files,
    jsonl,
    ml_1m,
    ml_32m,
    ml_100k,
    parquet,
    published,
    recbole,
)
from langptune_rs.data.sources.files import NO_FILES, Files, RawLogs, check_column
from langptune_rs.errors import DataError, nearest

SOURCES: dict[str, ModuleType] = {
    "amazon-2023": amazon_2023,
    "amazon-2018": amazon_2018,
    "amazon-2014": amazon_2014,
    "ml-100k": ml_100k,
    "ml-1m": ml_1m,
    "ml-32m": ml_32m,
    "ml-latest": ml_32m,
    "ml-latest-small": ml_32m,
    "jsonl": jsonl,
    "csv": csv_files,
    "parquet": parquet,
    "recbole": recbole,
}

_SIGNS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "amazon-2023": (("meta_*.jsonl",), ()),
    "amazon-2018": (("meta_*.json",), ("reviews_*.json",)),
    "amazon-2014": (("reviews_*.json",), ()),
    "ml-100k": (("ml-100k.inter", "ml-100k.item", "u.data"), ()),
    "ml-1m": (("movies.dat", "ratings.dat"), ()),
    "ml-latest": (("movies.csv", "ratings.csv"), ()),
    "jsonl": (("items.jsonl", "interactions.jsonl"), ()),
    "csv": (("items.csv", "items.tsv", "interactions.csv", "interactions.tsv"), ()),
    "parquet": (("interactions.parquet",), ()),
    "recbole": (("*.inter", "*.item"), ("ml-100k.inter", "ml-100k.item", "u.item")),
}
"""A folder belongs to a source if it holds one of the first files, plain or .gz, and none of the others.

The files of ml-32m look like those of ml-latest, and get that name.
"""

_TAKE_COLUMNS = ("jsonl", "csv", "parquet", "recbole")
_TAKE_OVERVIEW = ("ml-100k", "ml-1m", "ml-32m", "ml-latest", "ml-latest-small")


def needed_files() -> dict[str, str]:
    """Source -> the files that it needs, in words."""
    return {name: module.FILES for name, module in (SOURCES | {published.NAME: published}).items()}


@dataclass(frozen=True)
class Source:
    """A source and its files."""

    name: str
    logs: RawLogs


def find_source(source: str | Path, files: Files = NO_FILES) -> Source:
    """The source with the name `source` and the files of `files`, or the source whose files the folder `source` holds.

    A name is preferred to a folder of that name: write `./ml-100k` for the folder. Raises `DataError` for what is
    neither, for a folder that fits no source or several, for files that are missing, and for options that the source
    does not take.
    """
    name = str(source)
    if name not in SOURCES:
        folder = Path(source)
        if files.folder is not None or not folder.is_dir():
            raise DataError(
                f"There is no source {name!r}.{nearest(name, list(SOURCES))} "
                f"Give one of {', '.join(SOURCES)}, or a folder that holds its files."
            )
        name, files = _recognise(folder), replace(files, folder=folder)
    _check_options(name, files)
    return Source(name, SOURCES[name].open_logs(files))


def _recognise(folder: Path) -> str:
    found = [
        name
        for name, (signs, others) in _SIGNS.items()
        if any(_holds(folder, sign) for sign in signs) and not any(_holds(folder, other) for other in others)
    ]
    if not found:
        needs = "\n".join(f"  {name}: {module.FILES}" for name, module in SOURCES.items())
        raise DataError(f"{folder} holds the files of no source. Each needs its own:\n{needs}")
    if len(found) > 1:
        raise DataError(
            f"{folder} holds files of the sources {' and '.join(found)}. Say which is meant: "
            f"give the name, such as {found[0]}, as the source, and the folder with --path."
        )
    return found[0]


def _holds(folder: Path, pattern: str) -> bool:
    return any(path.is_file() for name in (pattern, f"{pattern}.gz") for path in folder.glob(name))


def _check_options(name: str, files: Files) -> None:
    if files.columns and name not in _TAKE_COLUMNS:
        raise DataError(
            f"The source {name} has fixed columns, and takes no --column. Only {', '.join(_TAKE_COLUMNS)} do."
        )
    if files.overview is not None and name not in _TAKE_OVERVIEW:
        raise DataError(
            f"The source {name} takes no --overview. Only {', '.join(_TAKE_OVERVIEW)} do, which have no descriptions."
        )
    for column in files.columns:
        check_column(column)
