"""The sources by name, and which of them a folder is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from langptune_rs.data.sources import jsonl, ml_100k
from langptune_rs.data.sources.raw import RawLogs, SourceFiles, check
from langptune_rs.errors import DataError

SOURCES: dict[str, ModuleType] = {"ml-100k": ml_100k, "jsonl": jsonl}


@dataclass(frozen=True)
class Source:
    """A source and its files."""

    name: str
    files: SourceFiles

    @property
    def template(self) -> str:
        return SOURCES[self.name].TEMPLATE

    def read(self) -> RawLogs:
        """The checked tables. Raises `DataError` with file and line for what is wrong in them."""
        logs = SOURCES[self.name].read(self.files)
        check(logs, self.files)
        return logs


def find_source(source: str | Path, path: Path | None = None) -> Source:
    """A source by its name, with its files in `path` if given, or the source whose files the folder `source` holds.

    A name goes before a folder of that name: write `./ml-100k` for the folder. Raises `DataError` for neither.
    """
    if str(source) in SOURCES:
        return Source(str(source), SOURCES[str(source)].files(path))
    folder = Path(source)
    if path is not None or not folder.is_dir():
        raise DataError(
            f"There is no source {str(source)!r}. Give one of {', '.join(SOURCES)}, or a folder that holds "
            "items.jsonl and interactions.jsonl."
        )
    if (folder / "ml-100k.inter").is_file():
        return Source("ml-100k", ml_100k.files(folder))
    return Source("jsonl", jsonl.files(folder))
