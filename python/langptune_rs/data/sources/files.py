"""What every source is given, files, and what it returns, a reader of its items and one of its interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from langptune_rs.data.readers.reader import INTERACTION_SCHEMA, ITEM_SCHEMA, Reader
from langptune_rs.errors import DataError, nearest

Role = Literal["items", "interactions"]
_AMAZON_OPTIONS = {"items": "--meta", "interactions": "--reviews"}


@dataclass(frozen=True)
class Files:
    """What the user says about where a source's files are."""

    folder: Path | None = None
    """Where files are looked for under the names that the source gives them."""
    items: Path | None = None
    interactions: Path | None = None
    overview: Path | None = None
    """A table with a description of each item, joined by id, for sources without descriptions."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Column of `ITEM_SCHEMA` or `INTERACTION_SCHEMA` -> its name in the user's own files."""

    def find(self, role: Role, source: str, *names: str) -> Path:
        """The file given for `role`, or the one in `folder` that has one of `names`, plain or .gz.

        Raises `DataError` where there is no such file, and where there are several.
        """
        given: Path | None = getattr(self, role)
        if given is not None:
            if not given.is_file():
                raise DataError(f"There is no file {given}, which was given for the {role} of {source}.")
            return given
        option = _AMAZON_OPTIONS[role] if source.startswith("amazon-") else f"--{role}"
        wanted = " or ".join(f"{name} (or {name}.gz)" for name in names)
        if self.folder is None:
            raise DataError(
                f"The source {source} needs its {role}: give the file with {option}, or the folder that holds "
                f"{wanted} with --path."
            )
        patterns = [pattern for name in names for pattern in (name, f"{name}.gz")]
        found = [path for pattern in patterns for path in sorted(self.folder.glob(pattern)) if path.is_file()]
        if not found:
            raise DataError(f"There is no {wanted} in {self.folder}. Give the file with {option}.")
        if len(found) > 1:
            raise DataError(
                f"{self.folder} holds {' and '.join(path.name for path in found[:3])}. "
                f"Say which is meant with {option}."
            )
        return found[0]


NO_FILES = Files()


def column_map(pairs: Sequence[str]) -> dict[str, str]:
    """Column -> name in the user's files, from pairs NAME=YOURS.

    Raises `DataError` for a pair that is not of the form NAME=YOURS, and for a column that no schema has.
    """
    columns = {}
    for pair in pairs:
        name, separator, theirs = pair.partition("=")
        if not separator or not theirs:
            raise DataError(f"The column {pair!r} is not of the form NAME=YOURS, such as item_id=asin.")
        check_column(name)
        columns[name] = theirs
    return columns


def check_column(name: str) -> None:
    """Raise `DataError` for a column that neither schema has."""
    known = [column for column in dict.fromkeys((*ITEM_SCHEMA, *INTERACTION_SCHEMA)) if column != "line"]
    if name not in known:
        raise DataError(f"There is no column {name!r} to read. Columns are {', '.join(known)}." + nearest(name, known))


@dataclass(frozen=True)
class RawLogs:
    """The two files of a source."""

    items: Reader
    interactions: Reader
    template: str
    """The name of the source's own template for prompts."""
    is_crawl: bool = False
    """Whether an item may be described twice, or not at all. The first description counts, and interactions with
    items that are not described are left out and counted. In data that is not a crawl either is an error."""

    others: Mapping[str, Path] = field(default_factory=dict)
    """Further files that are read for the items: role -> file."""

    @property
    def files(self) -> dict[str, Path]:
        return {"items": self.items.file, "interactions": self.interactions.file, **self.others}
