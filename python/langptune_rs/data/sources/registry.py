"""The sources by name, and which of them a folder is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from langptune_rs.data.sources import amazon_2014, amazon_2018, amazon_2023, jsonl
from langptune_rs.data.sources.raw import NO_FILES, Files, RawLogs
from langptune_rs.errors import DataError

SOURCES: dict[str, ModuleType] = {
    "amazon-2023": amazon_2023,
    "amazon-2018": amazon_2018,
    "amazon-2014": amazon_2014,
    "jsonl": jsonl,
}


@dataclass(frozen=True)
class Source:
    """A source and its files."""

    name: str
    logs: RawLogs


def find_source(source: str | Path, files: Files = NO_FILES) -> Source:
    if str(source) in SOURCES:
        return Source(str(source), SOURCES[str(source)].open_logs(files))
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"no source {source}")
    return Source("jsonl", jsonl.open_logs(replace(files, folder=folder)))
