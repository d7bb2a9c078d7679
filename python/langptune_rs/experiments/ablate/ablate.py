"""`langptune ablate`: what one key of a recipe does."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from langptune_rs.config import load_config
from langptune_rs.config.loading import DEFAULT_RECIPE
from langptune_rs.data import Dataset
from langptune_rs.errors import RunError
from langptune_rs.experiments.ablate.ablations import (
    EQUAL_PROFILES,
    Ablation,
    Value,
    beyond_limits,
    check_suits,
    find_ablation,
    folders_of,
    label,
    limits_of,
    overrides_of,
    values_of,
)
from langptune_rs.experiments.ablate.beside import beside, check_methods, split_settings
from langptune_rs.experiments.ablate.examples import examples_of
from langptune_rs.experiments.ablate.figures import write_figures
from langptune_rs.experiments.ablate.page import write_pages
from langptune_rs.experiments.ablate.rows import guards_of, rows_of
from langptune_rs.experiments.ablate.running import FailedRun, Plan, check_values, run_all
from langptune_rs.experiments.compare.guards import FOLDER as GUARDS
from langptune_rs.experiments.compare.task import Ranked
from langptune_rs.experiments.machine import command_line, machine, versions
from langptune_rs.experiments.prepared import prepared
from langptune_rs.experiments.seeds import check_no_seed, check_seeds
from langptune_rs.files import locked, write_text
from langptune_rs.runs.folder import read_config

ABLATION = "ablation.json"
VALIDATION = "validation"


def ablate(
    what: str,
    output: Path,
    *,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    values: str | None = None,
    seeds: Sequence[int] = (0,),
    split: str = VALIDATION,
    policy_only: bool = False,
    guards: bool = True,
    methods: str | None = None,
) -> dict[str, Any]:
    """Train and evaluate a run for each value and seed; write `ablation.json`, its pages and figures into `output`.

    They are written after each seed, and the last content of `ablation.json` is returned. What is finished in `output`
    is kept, and what was interrupted goes on.

    Args:
        what: the name of an ablation, see `ABLATIONS`.
        output: the folder of the runs, in VALUE/seed-N.
        recipe: a recipe's name, or a .toml file.
        overrides: `key=value` of the recipe.
        values: with commas between; the recipe's own is always one of them. None: see `values_of`.
        seeds: of the runs; a session's scores are averaged over them.
        split: the sessions that are ranked. The test split is read only if it is named here.
        policy_only: train every policy under one embedder, which is trained first.
        guards: whether to measure what the profiles rest on, for which the models of each run are loaded again.
        methods: names with commas between of methods that learn from the same shares, for train-ratio alone; their own
            settings are `METHOD.key=value` in `overrides`. See `beside`.

    Raises:
        InputError: for an ablation or a value that cannot be, no seeds, or one twice.
        ConfigError, DataError: for settings or data that cannot be used.
        RunError: for a folder that holds something else.
        With `methods` also what `compare` raises.
    """
    ablation = find_ablation(what)
    check_seeds(seeds)
    check_no_seed(overrides)
    of_recipe, of_methods = split_settings(methods, ablation, overrides)
    config = load_config(recipe, of_recipe)
    check_suits(ablation, config, policy_only=policy_only)
    output.mkdir(parents=True, exist_ok=True)
    with locked(output / ".lock", lambda holder: RunError(f"Another ablation{holder} is at work in {output}.")):
        dataset, folder = prepared(config, output)
        dataset.sessions.select(split)  # a split without sessions is refused before anything is trained
        if methods is not None:
            check_methods(config.data.source, dataset, methods, of_methods, config)
        limits = limits_of(ablation, config, dataset.sessions.splits.count("train"))
        found, own = values_of(ablation, values, config, limits)
        beyond = beyond_limits(ablation, config, limits) if values is None else ""
        if beyond:
            print(f"note: {beyond}", file=sys.stderr, flush=True)
        folders_of(found)
        data = f"data.source={json.dumps(str(folder.absolute()))}"
        plan = Plan(
            ablation=ablation,
            recipe=recipe,
            overrides=(*of_recipe, data),
            config=config,
            values=tuple(found),
            own=own,
            seeds=tuple(seeds),
            split=split,
            policy_only=policy_only,
            notes=tuple(filter(None, [*_notes(ablation, policy_only=policy_only), beyond])),
        )
        command = command_line(
            ["ablate", what],
            {
                "--output": output,
                "--values": values,
                "--config": recipe,
                "--set": list(overrides),
                "--split": None if split == VALIDATION else split,
                "--policy-only": policy_only,
                "--no-guards": not guards,
                "--beside": methods,
            },
            seeds,
        )
        check_values(plan, output)
        summary: dict[str, Any] = {}

        def after_seed(runs: Mapping[Value, Sequence[Path]], failed: Sequence[FailedRun]) -> None:
            nonlocal summary
            summary = _summary(plan, runs, output, dataset, list(overrides), guards=guards) | {
                "failures": [
                    {"value": label(ablation, one.value), "seed": one.seed, "reason": one.reason} for one in failed
                ],
                "command": command,
            }
            _write(summary, output)  # what runs have shown stands before other methods are fitted
            if methods is not None:
                others, summary["missing"] = beside(plan, methods, of_methods, runs, folder, output)
                for value, row in zip(runs, summary["rows"], strict=True):
                    row["beside"] = others[value]
                _write(summary, output)

        run_all(plan, output, after_seed)
    return summary


def _write(summary: Mapping[str, Any], output: Path) -> None:
    write_text(output / ABLATION, json.dumps(summary, indent=2, allow_nan=False) + "\n")
    write_figures(summary, output)
    write_pages(summary, output)


def _summary(
    plan: Plan,
    runs: Mapping[Value, Sequence[Path]],
    output: Path,
    dataset: Dataset,
    overrides: list[str],
    *,
    guards: bool,
) -> dict[str, Any]:
    """The content of ablation.json, but for what failed and the command."""
    ablation = plan.ablation
    labels = {value: label(ablation, value) for value in runs}
    own = labels[plan.own]
    by_label = {labels[value]: of_value for value, of_value in runs.items()}
    sessions, rows = rows_of(by_label, own, plan.split)
    users = sessions["user_id"].to_list()
    config = read_config(by_label[own][0])
    measured: dict[str, Any] = {}
    if guards:
        place = Path(config.data.source)
        ranked = Ranked(place, dataset.content, plan.split, None, config.data.seed, config.evaluation.k)
        measured = guards_of(by_label, sessions, ranked, dataset, output / GUARDS)
    return {
        "name": ablation.name,
        "key": ablation.key,
        "title": ablation.title,
        "method": config.method,
        "own": own,
        "data": plan.config.data.source,
        "content": dataset.content,
        "split": plan.split,
        "num_sessions": len(users),
        "num_users": len(set(users)),
        "k": config.evaluation.k,
        "seeds": sorted({seed for row in rows for seed in row["seeds"]}),
        "policy_only": plan.policy_only,
        "recipe": plan.recipe or DEFAULT_RECIPE,
        "overrides": overrides,
        "notes": list(plan.notes),
        "missing": [],
        "rows": [
            {
                "value": value,
                "settings": _settings(plan, value),
                "runs": [str(run.relative_to(output)) for run in runs[value]],
                **row,
                "guards": measured.get(row["label"]),
                "beside": {},
            }
            for value, row in zip(runs, rows, strict=True)
        ],
        "examples": examples_of(_of_one_seed(by_label), own, dataset, plan.split),
        "machine": machine(),
        "versions": versions(),
    }


def _settings(plan: Plan, value: Value) -> list[str]:
    """What a value's runs have beside the recipe and the user's settings."""
    given = {override.partition("=")[0].strip() for override in plan.overrides}  # the user's own are stronger
    fixed = [f"{key}={json.dumps(setting)}" for key, setting in plan.ablation.with_all.items() if key not in given]
    alone = ["method=LangPTune-RLSO"] if plan.policy_only else []
    return [*fixed, *overrides_of(plan.ablation, value, plan.config), *alone]


def _of_one_seed(runs: Mapping[str, Sequence[Path]]) -> dict[str, Path]:
    """The run of each value with the first seed that all of them have; nothing where they have none in common."""
    by_seed = {name: {read_config(run).seed: run for run in of_value} for name, of_value in runs.items()}
    shared = set.intersection(*(set(found) for found in by_seed.values()))
    return {name: found[min(shared)] for name, found in by_seed.items()} if shared else {}


def _notes(ablation: Ablation, *, policy_only: bool) -> list[str]:
    """What is special about these runs, in sentences."""
    notes = [ablation.note] if ablation.note else []
    if ablation.key.startswith("rlso."):
        notes.append(EQUAL_PROFILES)
    if policy_only:
        notes.append("One embedder was trained first, and every policy learns under it.")
    return notes
