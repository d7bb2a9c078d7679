"""What a run was started with, in `origin.json`: where its folder was, and what its data set held.

A run's numbers are worth something only with the data that it was trained on. With other data its models may have
trained on sessions that are now held out, and the number of an item may mean another item.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from langptune_rs.data import Dataset
from langptune_rs.data.store.content import PARTS
from langptune_rs.data.store.sessions import SPLITS
from langptune_rs.errors import RunError
from langptune_rs.files import write_text

ORIGIN = "origin.json"


@dataclass(frozen=True)
class Data:
    """What a data set held."""

    content: dict[str, str]
    """A hash of each part: see `Dataset.content`."""
    counts: dict[str, int]
    """Items, and sessions of each split."""
    settings: dict[str, Any]
    """What it was prepared with, which tells a person how to make it again."""

    @classmethod
    def of(cls, dataset: Dataset) -> Data:
        """What a data set holds."""
        splits = dataset.sessions.splits
        counts = {"items": len(dataset.catalog), **{split: splits.count(split) for split in SPLITS}}
        return cls(dataset.content, counts, dict(dataset.info.get("config", {})))

    def check(self) -> None:
        """Raise `TypeError` for a value of another kind than its field's."""
        for values, kind in ((self.content, str), (self.counts, int), (self.settings, object)):
            if not isinstance(values, dict) or not all(isinstance(value, kind) for value in values.values()):
                raise TypeError("a value is of another kind")


@dataclass(frozen=True)
class Origin:
    """What a run was started with."""

    folder: Path
    """Where the run's folder was when its configuration was written, absolute."""
    data: Data


def read_origin(run: Path) -> Origin | None:
    """What a run was started with. None for a run that has not opened its data, or whose version did not note it.

    Raises `RunError` for a file that cannot be read.
    """
    path = run / ORIGIN
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        data = Data(**values["data"])
        data.check()
        return Origin(Path(values["folder"]), data)
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise RunError(
            f"{path} is damaged ({type(error).__name__}), so nothing says which data {run} was trained on. Restore the "
            "file from a copy, or train a new run with another --output."
        ) from error


def write_origin(run: Path, data: Data) -> None:
    """Note the data of a run, and where the run is."""
    write_text(run / ORIGIN, json.dumps({"folder": str(run.absolute()), "data": asdict(data)}, indent=2) + "\n")


def check_data(run: Path, trained_on: Data, dataset: Dataset, source: Path | str) -> None:
    """Raise `RunError`, with what differs, unless `dataset` holds what a run was trained on. `source` is its place."""
    now = Data.of(dataset)
    if now.content == trained_on.content:
        return
    parts = [words for part, words in PARTS.items() if trained_on.content.get(part) != now.content.get(part)]
    counts = [_then_and_now(name, trained_on.counts.get(name), count) for name, count in now.counts.items()]
    settings = [
        _then_and_now(name, trained_on.settings.get(name), now.settings.get(name))
        for name in {**trained_on.settings, **now.settings}
        if trained_on.settings.get(name) != now.settings.get(name)
    ]
    prepared = f" It was prepared with another {', '.join(settings)}." if settings else ""
    raise RunError(
        f"{source} no longer holds the data that {run} was trained on. What differs: {', '.join(parts)} "
        f"({', '.join(counts)}).{prepared} The models may have trained on sessions that are held out now. Put the data "
        "back as it was, or train a new run with another --output."
    )


def _then_and_now(name: str, then: object, now: object) -> str:
    return f"{name}: {now}" if then == now else f"{name}: {then} then, {now} now"
