"""Methods that need no run: tuned on validation, then fitted with every seed and ranked once."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from langptune_rs.baselines.method import Method
from langptune_rs.data import Dataset
from langptune_rs.errors import DataError, RunError
from langptune_rs.experiments.compare.rows import Compared, LeftOut
from langptune_rs.experiments.compare.settings import Plan
from langptune_rs.experiments.compare.task import (
    MODEL,
    Failure,
    MethodFailedError,
    Outcome,
    Ranked,
    Task,
    run_task,
)
from langptune_rs.files import write_text

VALIDATION = "validation"
TUNING_SEED = 0


def fit_methods(
    plans: Sequence[Plan],
    ranked: Ranked,
    dataset: Dataset,
    seeds: Sequence[int],
    output: Path,
    *,
    is_all: bool,
) -> tuple[list[Compared], list[LeftOut], pl.DataFrame | None]:
    """The rows of methods that need no run, those left out, and the sessions that were ranked (None without a row).

    Each setting of a plan is fitted with the seed 0 and ranks the validation split, with the values of the plan's trial
    if it has one. The one with the best NDCG@k is fitted with every seed and ranks the split of `ranked`. What was
    fitted with the seed 0 and no trial is not fitted again.

    A setting that the method refuses and a seed that fails are said and left out. Where a setting fails otherwise, as
    when memory runs out, the method ranks nothing this time, since its choice is not made. Such a method is left out,
    and so is one of which no seed has worked; the others go on. With `is_all` one is left out too whose data are not
    there.

    Raises:
        DataError: when the data lack what a method needs that was asked for by name.
        RunError: see `run_task`.
    """
    rows: list[Compared] = []
    left_out: list[LeftOut] = []
    sessions: pl.DataFrame | None = None
    for number, plan in enumerate(plans):
        method = plan.method
        print(f"{method.name} ({number + 1}/{len(plans)})", file=sys.stderr, flush=True)
        try:
            method.check_data(dataset)
            settings, fitted_in, tuning = _tuned(plan, ranked, output)
            outcomes, failures = _seeds(method, settings, ranked, seeds, output, fitted_in)
        except (DataError, MethodFailedError) as error:
            if not is_all and not isinstance(error, MethodFailedError):
                raise
            left_out.append(LeftOut(method.name, str(error)))
            print(f"  left out: {error}", file=sys.stderr, flush=True)
            continue
        sessions = outcomes[0].sessions if sessions is None else sessions
        if not outcomes[0].sessions.equals(sessions):
            raise RunError(f"{outcomes[0].task.folder} holds other sessions than the methods before it. Remove it.")
        rows.append(_row(method, settings, outcomes, failures, tuning))
    return rows, left_out, sessions


def _tuned(plan: Plan, ranked: Ranked, output: Path) -> tuple[dict[str, Any], Path | None, dict[str, Any] | None]:
    """The settings of a method with the best validation NDCG@k, the folder where they were fitted, if any, and why.

    The last is what `tuning.json` in the method's folder says: {"trial": the values that made fits short, "tried":
    [{"settings", and NDCG@k on validation or why it "failed"}], "chosen": the number of the best}.
    """
    name, headline = plan.method.name, f"ndcg@{ranked.k}"
    if len(plan.settings) == 1:
        if plan.choices[0]:
            _say(_shown(plan.choices[0]))
        return plan.settings[0], None, None
    folder, on_validation = output / folder_name(name), replace(ranked, split=VALIDATION, limit=None)
    tasks = [
        Task(folder / f"tuning-{number}", name, settings | plan.trial, TUNING_SEED, on_validation)
        for number, settings in enumerate(plan.settings)
    ]
    if plan.trial:
        _say(f"tried with {_shown(plan.trial)}:")
    tried: list[dict[str, Any]] = []
    for task, choice in zip(tasks, plan.choices, strict=True):
        outcome = run_task(task)
        if isinstance(outcome, Failure):
            if not outcome.is_refusal:
                raise MethodFailedError(
                    f"{name} with {_shown(choice)} failed on validation: {outcome.reason}. Nothing is chosen "
                    "before every setting has been tried: run the command again, or set the values yourself."
                )
            found, said = {"failed": outcome.reason}, f"refused: {outcome.reason}"
        else:
            found = {headline: outcome.results["mean"][headline]}
            said = f"NDCG@{ranked.k} on validation {found[headline]:.4f}"
        tried.append({"settings": choice, **found})
        _say(f"{_shown(choice)}: {said}")
    worked = [number for number, found in enumerate(tried) if headline in found]
    if not worked:
        raise MethodFailedError(f"No setting of {name} works: {tried[-1]['failed']}")
    best = max(worked, key=lambda number: (tried[number][headline], -number))
    tuning = {"trial": plan.trial, "tried": tried, "chosen": best}
    write_text(folder / "tuning.json", json.dumps(tuning, indent=2) + "\n")
    return plan.settings[best], None if plan.trial else tasks[best].folder, tuning


def _seeds(
    method: type[Method],
    settings: dict[str, Any],
    ranked: Ranked,
    seeds: Sequence[int],
    output: Path,
    fitted_in: Path | None,
) -> tuple[list[Outcome], dict[int, str]]:
    """What a method shows with each seed, one alone if nothing is drawn, and why others failed.

    `fitted_in` is the folder where it was fitted with these settings and the `TUNING_SEED`, if any. Where its model
    is gone, the method is fitted again.
    """
    outcomes: list[Outcome] = []
    failures: dict[int, str] = {}
    is_drawn = method.uses_seed or ranked.train_share < 1
    for seed in seeds if is_drawn else seeds[:1]:
        folder = output / folder_name(method.name) / f"seed-{seed}"
        is_fitted = (seed == TUNING_SEED or not is_drawn) and fitted_in is not None and (fitted_in / MODEL).is_dir()
        outcome = run_task(Task(folder, method.name, settings, seed, ranked, fitted_in if is_fitted else None))
        if isinstance(outcome, Failure):
            failures[seed] = outcome.reason
            _say(f"seed {seed} failed: {outcome.reason}")
        else:
            outcomes.append(outcome)
            _say(f"seed {seed}: NDCG@{ranked.k} {outcome.results['mean'][f'ndcg@{ranked.k}']:.4f}")
    if not outcomes:
        raise MethodFailedError(f"{method.name} works with no seed: {next(iter(failures.values()))}")
    return outcomes, failures


def _row(
    method: type[Method],
    settings: Mapping[str, Any],
    outcomes: Sequence[Outcome],
    failures: Mapping[int, str],
    tuning: Mapping[str, Any] | None,
) -> Compared:
    results = [outcome.results for outcome in outcomes]
    fit_seconds = [found["fit_seconds"] for found in results if found["fit_seconds"] is not None]
    per_recommendation = [1000 * found["rank_seconds"] / found["num_sessions"] for found in results]
    return Compared(
        method=method.name,
        group=method.group,
        decoding=None,
        seeds=tuple(outcome.task.seed for outcome in outcomes),
        scores={
            metric: np.mean([outcome.scores[metric] for outcome in outcomes], axis=0) for metric in outcomes[0].scores
        },
        seed_means={metric: [found["mean"][metric] for found in results] for metric in outcomes[0].scores},
        settings=settings,
        costs={
            "fit_seconds": float(np.mean(fit_seconds)) if fit_seconds else None,
            "milliseconds": float(np.mean(per_recommendation)),
            "peak_memory": max(found["peak_memory"] for found in results),
        },
        failures=failures,
        unfinished={outcome.task.seed: text for outcome in outcomes if (text := outcome.results.get("unfinished", ""))},
        made={
            outcome.task.seed: {
                **outcome.results.get("made", {"machine": None, "versions": None}),
                "notes_unfinished": "unfinished" in outcome.results,
            }
            for outcome in outcomes
        },
        tuning=tuning,
    )


def folder_name(method: str) -> str:
    """The folder of a method: "Mean of history" -> "mean-of-history"."""
    return method.lower().replace(" ", "-")


def _shown(choice: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in choice.items())


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)
