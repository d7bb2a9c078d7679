"""Where the sets of the published split come from: the hub, or local copies of its files."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from langptune_rs.data.sources.failures import reason
from langptune_rs.data.store.tables import read_parquet, scan_parquet
from langptune_rs.errors import DataError

HUB_TIMEOUT_SECONDS = 10.0

SPLITS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}
"""Published names -> ours."""

_DENSE = "dense_in_sesses"
"""A column with a number for each item. Only one of its rows is read, since all of them are gigabytes."""
_SHARD = re.compile(r".*-\d{5}-of-(\d{5})")


class PublishedSet(NamedTuple):
    """The rows of a published set."""

    splits: dict[str, pl.DataFrame]
    num_items: int | None
    """The number of items that the sessions were made of, where the set says it."""


def local_files(source: str | Path) -> list[Path]:
    """The files of a local copy that hold its rows, in order. A hub id has none."""
    folder = Path(source).expanduser()
    found = [*folder.rglob("*.parquet"), *folder.rglob("*.arrow")] if folder.is_dir() else []
    return sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(folder).parts))


def load(source: str | Path, columns: Collection[str]) -> PublishedSet:
    """Every split of a set, with those of `columns` that it has.

    `source` is a hub id or a local copy. Raises `DataError` when there is no such set, or it cannot be read.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        folder = _hub_folder(str(source))
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            return _from_datasets(source, _datasets().load_from_disk(folder), columns)
        files = local_files(folder)
        if not files or any(file.suffix != ".parquet" for file in files):
            raise DataError(
                f"{folder} holds no published set: neither what `save_to_disk` writes nor parquet files of its splits."
            )
        return _from_parquet(folder, files, columns)
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{folder} cannot be read: {reason(error)}. Copy it again from the hub.") from error


def _from_parquet(folder: Path, files: Sequence[Path], columns: Collection[str]) -> PublishedSet:
    splits: dict[str, list[Path]] = {}
    for file in files:
        words = [re.split("[^a-z]", part, maxsplit=1)[0] for part in (file.stem, file.parent.name)]
        splits.setdefault(next((word for word in words if word in SPLITS), "train"), []).append(file)
    for parts in splits.values():
        shard = _SHARD.fullmatch(parts[0].stem)
        if shard and int(shard[1]) != len(parts):
            raise DataError(
                f"{folder} has {len(parts)} files like {parts[0].name}, not {int(shard[1])}. Copy the others."
            )
    present = scan_parquet(files[0]).collect_schema()
    wanted = [column for column in columns if column in present]
    tables = {name: pl.concat([read_parquet(part, wanted) for part in parts]) for name, parts in splits.items()}
    num_labels = None
    if _DENSE in present:
        num_labels = scan_parquet(files[0]).select(pl.col(_DENSE).list.len()).head(1).collect().item()
    return PublishedSet(tables, num_labels)


def _from_datasets(source: str | Path, found: Any, columns: Collection[str]) -> PublishedSet:
    splits = found if isinstance(found, dict) else {"train": found}
    if not splits or not any(map(len, splits.values())):
        raise DataError(f"{source} is empty.")
    tables = {
        name: rows.select_columns([column for column in columns if column in rows.column_names]).to_polars()
        for name, rows in splits.items()
    }
    first = next(rows for rows in splits.values() if len(rows))
    return PublishedSet(tables, len(first[0][_DENSE]) if _DENSE in first.column_names else None)


def _hub_folder(name: str) -> Path:
    """The folder of a set from the hub, downloaded where it is missing.

    An earlier download is used when the hub cannot be reached. Raises `DataError` when there is none.
    """
    from huggingface_hub import HfApi, snapshot_download

    if name.startswith((".", "~", "/")) or name.count("/") != 1:
        raise DataError(f"There is no folder {name}, and it is not a hub id (owner/name).")

    def copy(*, is_here: bool) -> Path:
        """The folder of the copy, downloaded unless `is_here`."""
        return Path(snapshot_download(name, repo_type="dataset", allow_patterns="*.parquet", local_files_only=is_here))

    try:
        # The client tries for minutes where there is no network, so first ask one question that cannot take long.
        HfApi().dataset_info(name, timeout=HUB_TIMEOUT_SECONDS)
        return copy(is_here=False)
    except Exception as error:  # the client's transport errors have no common base
        try:
            return copy(is_here=True)
        except OSError:
            raise DataError(
                f"The published set {name} cannot be fetched from the hub ({reason(error)}), and no download of it is "
                f"here. Run `hf download --repo-type dataset {name} --local-dir FOLDER` where there is a network, and "
                "give the folder."
            ) from error


def _datasets() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise DataError(
            "The package datasets reads what `save_to_disk` wrote, but is not installed. Run "
            "`pip install 'langptune-rs[hub]'`, or give the hub's parquet files."
        ) from error
    return datasets
