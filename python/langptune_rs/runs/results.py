"""The files that an evaluation writes into a run's folder. Those of the test split carry plain names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from langptune_rs.errors import RunError

TEST = "test"
BASELINE = "LangPTune-0"
"""The method every p-value is against: the same two models, untrained."""


def results_path(run: Path, split: str = TEST) -> Path:
    """Path of the JSON file with the mean, interval and p-value of every method and metric."""
    return run / f"results{_suffix(split)}.json"


def per_user_path(run: Path, split: str = TEST) -> Path:
    """Path of the Parquet file with one row for each table, method and session: its metrics and the ranks behind."""
    return run / f"per_user{_suffix(split)}.parquet"


def profiles_path(run: Path, split: str = TEST) -> Path:
    """Path of the Parquet file with one row for each profile that was written."""
    return run / f"profiles{_suffix(split)}.parquet"


def read_results(run: Path, split: str = TEST) -> dict[str, Any]:
    """The content of `results_path`. Raises `RunError` when the run has not been evaluated on `split`."""
    path = results_path(run, split)
    if not path.is_file():
        raise RunError(
            f"{run} has no results on the {split} split: there is no {path.name} in it. "
            f"Run `langptune evaluate {run} --split {split}` first."
        )
    results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return results


def _suffix(split: str) -> str:
    return "" if split == TEST else f"-{split}"
