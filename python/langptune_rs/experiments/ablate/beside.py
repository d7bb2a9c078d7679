"""Other methods that learn from the same shares of the train sessions (figures 3 and 4 of the paper)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langptune_rs.baselines.registry import METHODS
from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset
from langptune_rs.errors import InputError
from langptune_rs.experiments.ablate.ablations import Ablation, Value, folder_name, label
from langptune_rs.experiments.ablate.running import Plan
from langptune_rs.experiments.compare.compare import check_validation, compare
from langptune_rs.experiments.compare.settings import comes_from_runs, find_methods, plan_of, split_overrides
from langptune_rs.runs.folder import read_config

FOLDER = "beside"
"""The folder of the comparisons, one for each share, which have pages of their own."""
MOST = 4
"""Methods that a figure can tell apart beside what was trained."""


def split_settings(methods: str | None, ablation: Ablation, overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    """The overrides of the recipe, and those of the methods beside, such as `MCL.dim=64`.

    Raises `InputError` for methods that cannot stand beside, and for settings of a method that does not.
    """
    of_methods = [override for override in overrides if split_overrides([override])[1]]
    named = set(_names(methods))
    if named and ablation.key != "data.train_share":
        raise InputError(f"--beside goes with train-ratio: nothing that {ablation.name} varies changes other methods")
    if len(named) > MOST:
        raise InputError(f"--beside has {len(named)} methods, and a figure tells {MOST} apart: name those that matter")
    if idle := split_overrides(of_methods)[1].keys() - named:
        raise InputError(f"{', '.join(sorted(idle))} has settings, but is not among the methods of --beside")
    return [override for override in overrides if override not in of_methods], of_methods


def _names(methods: str | None) -> list[str]:
    """The methods that are named. Raises `InputError` for one that is none, or that an ablation trains itself."""
    if methods is None:
        return []
    for name in (name.strip() for name in methods.split(",")):
        if name in METHODS and comes_from_runs(METHODS[name]):
            raise InputError(
                f"{name} is trained by `langptune train`, or by the ablation itself: leave it out of --beside"
            )
    return [method.name for method in find_methods(methods)[0]]


def check_methods(data: str, dataset: Dataset, methods: str, of_methods: Sequence[str], recipe: RunConfig) -> None:
    """Raise what `plan_of` and `check_validation` raise where methods cannot be fitted, before anything is trained."""
    values = split_overrides(of_methods)[1]
    check_validation(data, dataset, [plan_of(m, recipe, values.get(m.name, {})) for m in find_methods(methods)[0]])


def beside(
    plan: Plan, methods: str, of_methods: Sequence[str], runs: Mapping[Value, Sequence[Path]], data: Path, output: Path
) -> tuple[dict[Value, dict[str, Any]], list[str]]:
    """What methods show that learn from each share, with the seeds of its runs; and what is missing, in sentences.

    They are compared with the runs by `compare`, in a folder for each share. A method has {"metrics"} as in
    comparison.json, and "p" by metric: that of its test against the runs' method with greedy profiles, corrected over
    all pairs of methods of different groups. Raises what `compare` raises.
    """
    found: dict[Value, dict[str, Any]] = {}
    missing: list[str] = []
    for value, of_value in runs.items():
        share = float(value) / 100
        comparison = compare(
            str(data),
            output / FOLDER / folder_name(value),
            methods=methods,
            runs=of_value,
            seeds=[read_config(run).seed for run in of_value],
            recipe=plan.recipe,
            overrides=[*plan.overrides, *of_methods, f"data.train_share={json.dumps(share)}"],
            split=plan.split,
            guards=False,
        )
        own = next(row["name"] for row in comparison["rows"] if _is_own(row, plan.config.method))
        against = {
            (({test["method"], test["other"]} - {own}).pop(), test["metric"]): test["p_holm"]
            for test in comparison["tests"]
            if own in (test["method"], test["other"])
        }
        fitted = [row for row in comparison["rows"] if row["decoding"] is None]
        found[value] = {
            row["name"]: {
                "metrics": row["metrics"],
                "p": {metric: p for metric in row["metrics"] if (p := against.get((row["name"], metric))) is not None},
                "learns_from_histories": row["learns_from_histories"],
            }
            for row in fitted
        }
        share_label = label(plan.ablation, value)
        missing += [f"{share_label}: {out['method']} is left out: {out['reason']}" for out in comparison["left_out"]]
        missing += [
            f"{share_label}: {row['name']}, seed {failure['seed']}, failed: {failure['reason']}"
            for row in fitted
            for failure in row["failures"]
        ]
    return found, missing


def _is_own(row: Mapping[str, Any], method: str) -> bool:
    return bool(row["method"] == method and row["decoding"] == "greedy")
