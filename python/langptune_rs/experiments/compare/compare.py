"""`langptune compare`: every method on the same data, split and candidates, and the tests between them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from langptune_rs.baselines.method import Method
from langptune_rs.baselines.registry import METHODS, find_method
from langptune_rs.config import RunConfig, load_config
from langptune_rs.data import Dataset
from langptune_rs.errors import DataError, InputError, ModelError, RunError
from langptune_rs.evaluation.significance import bootstrap_intervals
from langptune_rs.evaluation.summary import LOWER_IS_BETTER, compare_sessions, with_holm
from langptune_rs.experiments.compare.fitting import VALIDATION, fit_methods
from langptune_rs.experiments.compare.from_runs import (
    check_budget,
    check_models,
    check_runs,
    rows_of_runs,
    unlike_training,
)
from langptune_rs.experiments.compare.guards import FOLDER as GUARDS
from langptune_rs.experiments.compare.guards import guard_rows
from langptune_rs.experiments.compare.guards import summary as guards_summary
from langptune_rs.experiments.compare.orderings import orderings
from langptune_rs.experiments.compare.page import write_pages
from langptune_rs.experiments.compare.rows import ACROSS, GROUPS, Compared, LeftOut
from langptune_rs.experiments.compare.settings import Plan, find_methods, plan_of, split_overrides
from langptune_rs.experiments.compare.task import Ranked
from langptune_rs.experiments.compare.timing import FOLDER as MILLISECONDS
from langptune_rs.experiments.compare.timing import timed_rows
from langptune_rs.experiments.machine import command_line, machine, versions
from langptune_rs.experiments.prepared import prepared
from langptune_rs.experiments.seeds import check_no_seed, check_seeds
from langptune_rs.files import locked, write_text
from langptune_rs.runs.folder import resolved_data
from langptune_rs.runs.paths import absolute_paths
from langptune_rs.runs.results import TEST

COMPARISON = "comparison.json"


def compare(
    data: str,
    output: Path,
    *,
    methods: str = "all",
    runs: Sequence[Path] = (),
    seeds: Sequence[int] = (0, 1, 2),
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    split: str = TEST,
    guards: bool = True,
) -> dict[str, Any]:
    """Fit, rank and test methods; write `comparison.json` and its pages into `output`, and return its content.

    What is finished in `output` is kept, and what was interrupted goes on. The test split is ranked once by each method
    and seed, after its settings have been chosen on validation.

    Args:
        data: a source name, a folder of files, or a prepared data set.
        methods: names with commas between, or "all": see `find_methods`.
        runs: evaluated folders of `langptune train`, whose methods are compared too.
        seeds: each method that draws anything is fitted with every one; a session's scores are averaged over them.
        recipe: where the settings of the data and the embedder come from.
        overrides: `key=value` of the recipe, or `METHOD.key=value`.
        guards: whether to measure what the profiles of the runs rest on, and how long a recommendation takes. It loads
            their models, and embeds the catalog and all profiles again; without it their results are enough.

    Raises:
        InputError: for an unknown method, no seeds, or one twice.
        ConfigError, DataError: for settings or data that cannot be used.
        RunError: for a folder or a run of other data, split or sessions, with what differs.
    """
    check_seeds(seeds)
    if split == "train":
        raise InputError("methods have learned from the targets of the train split; compare on validation or test")
    wanted, is_all = find_methods(methods)
    of_recipe, of_methods = split_overrides(overrides)
    check_no_seed(of_recipe)
    if idle := of_methods.keys() - {method.name for method in wanted}:
        raise InputError(
            f"{', '.join(sorted(idle))} has settings, but is not among the methods that are fitted. Leave the settings "
            "out, or name the method in --methods"
        )
    config = resolved_data(absolute_paths(load_config(recipe, [*of_recipe, f"data.source={json.dumps(str(data))}"])))
    output.mkdir(parents=True, exist_ok=True)
    with locked(output / ".lock", lambda holder: RunError(f"Another comparison{holder} is at work in {output}.")):
        dataset, folder = prepared(config, output)
        ranked = Ranked(
            data=folder,
            content=dataset.content,
            split=split,
            limit=config.evaluation.max_sessions,
            data_seed=config.data.seed,
            k=config.evaluation.k,
            train_share=config.data.train_share,
        )
        ranked.sessions(dataset.sessions)  # a split without sessions is refused before anything is fitted
        check_runs(runs, ranked, config.embedder if any("embedder" in method.needs for method in wanted) else None)
        if guards:
            check_models(runs, split)
        plans, left_out = _plans(wanted, config, of_methods, is_all=is_all)
        for plan in plans:
            check_budget(runs, plan, config, of_methods.get(plan.method.name, {}))
        check_validation(data, dataset, plans)
        fitted, failed, sessions = fit_methods(plans, ranked, dataset, seeds, output, is_all=is_all)
        left_out += failed
        of_runs, sessions = rows_of_runs(runs, ranked, sessions)
        if guards and sessions is not None:
            of_runs = guard_rows(of_runs, sessions, ranked, dataset, output / GUARDS)
            of_runs = timed_rows(of_runs, sessions, ranked, dataset, output / MILLISECONDS)
        rows = sorted([*fitted, *of_runs], key=_place)
        if sessions is None:
            raise InputError(" ".join(["no method is left to compare.", *(out.reason for out in left_out)]))
        users, headline = sessions["user_id"].to_list(), f"ndcg@{ranked.k}"
        comparison = {
            "data": str(data),
            "content": ranked.content,
            "split": split,
            "num_sessions": len(users),
            "num_users": len(set(users)),
            "num_items": len(dataset.catalog),
            "k": ranked.k,
            "train_share": ranked.train_share,
            "leakage": dataset.info.get("leakage", {}),
            "seeds": list(seeds),
            "rows": [_summary(row, users, headline) for row in rows],
            "tests": paired_tests(rows, users, headline),
            "orderings": orderings(rows, users),
            "unlike": unlike_training(runs),
            "left_out": [{"method": out.method, "reason": out.reason} for out in left_out],
            "command": command_line(
                ["compare", data],
                {
                    "--output": output,
                    "--methods": methods,
                    "--run": list(runs),
                    "--config": recipe,
                    "--set": list(overrides),
                    "--split": None if split == TEST else split,
                    "--no-guards": not guards,
                },
                seeds,
            ),
            "machine": machine(),
            "versions": versions(),
        }
        write_text(output / COMPARISON, json.dumps(comparison, indent=2, allow_nan=False) + "\n")
        write_pages(comparison, output)
    return comparison


def _place(row: Compared) -> tuple[int, bool, int, str]:
    """Where a row stands in the table: by group, and within it those with sampled profiles behind the others."""
    return GROUPS.index(row.group), row.decoding == "sampled", list(METHODS).index(row.method), row.objective


def _plans(
    methods: Sequence[type[Method]], recipe: RunConfig, values: Mapping[str, Mapping[str, Any]], *, is_all: bool
) -> tuple[list[Plan], list[LeftOut]]:
    """What is tried of each method; with `is_all` one whose models cannot be found is left out."""
    plans: list[Plan] = []
    left_out: list[LeftOut] = []
    for method in methods:
        try:
            plans.append(plan_of(method, recipe, values.get(method.name, {})))
        except ModelError as error:
            if not is_all:
                raise
            left_out.append(LeftOut(method.name, str(error)))
    return plans, left_out


def check_validation(data: str, dataset: Dataset, plans: Sequence[Plan]) -> None:
    """Raise `DataError` where the data have no validation sessions and a plan needs some."""
    needy = [plan.method.name for plan in plans if plan.needs_validation]
    if not needy or dataset.sessions.splits.count(VALIDATION):
        return
    counts = ", ".join(f"{dataset.sessions.splits.count(split)} {split}" for split in ("train", VALIDATION, TEST))
    others = ",".join(plan.method.name for plan in plans if not plan.needs_validation)
    raise DataError(
        f"{data} has no validation sessions ({counts}), by which {', '.join(needy)} are tuned, or stopped in time. "
        "Prepare the data again with sessions held out for validation, as `langptune data prepare` does"
        + (f", or compare --methods {others} alone." if others else ".")
    )


def _summary(row: Compared, users: ArrayLike, headline: str) -> dict[str, Any]:
    """A row as comparison.json has it: every metric's mean, 95% interval, spread between seeds, and the guards."""
    intervals = bootstrap_intervals(row.scores, clusters=users)
    return {
        "name": row.name,
        "method": row.method,
        "group": row.group,
        "learns_from_histories": find_method(row.method).learns_from_histories,
        "decoding": row.decoding,
        "objective": row.objective,
        "seeds": list(row.seeds),
        "failures": [{"seed": seed, "reason": reason} for seed, reason in row.failures.items()],
        "unfinished": [{"seed": seed, "what": what} for seed, what in row.unfinished.items()],
        "made": [{"seed": seed, "how": how} for seed, how in row.made.items()],
        "settings": dict(row.settings),
        "tuning": row.tuning,
        **row.costs,
        "metrics": {
            metric: {
                "mean": float(scores.mean()),
                "low": intervals[metric][0],
                "high": intervals[metric][1],
                "seed_sd": float(np.std(row.seed_means[metric], ddof=1)) if len(row.seeds) > 1 else None,
            }
            for metric, scores in row.scores.items()
        },
        "guards": None if row.guards is None else guards_summary(row.scores[headline], row.guards, users),
    }


def paired_tests(rows: Sequence[Compared], users: ArrayLike, headline: str) -> list[dict[str, Any]]:
    """Paired tests of all pairs: those within each group are a family, and so are all others, `ACROSS`.

    The first of a pair has the higher mean of `headline`. p-values of one metric and one family are corrected by Holm's
    method over all its pairs. "is_shown" says which pairs a table has: the best of a group with the others of it, and
    the best of the groups with each other. Which these are is chosen by the same scores, so that the pairs that are not
    shown count too. A row is {"family", "is_shown", "method", "other", "metric", "difference", "interval", "p",
    "p_holm"}; `difference` is `method` less `other`.
    """
    families: dict[str, list[tuple[Compared, Compared]]] = {group: [] for group in (*GROUPS, ACROSS)}
    ordered = _best_first(rows, headline)
    for a, b in combinations(ordered, 2):
        families[a.group if a.group == b.group else ACROSS].append((a, b))
    leaders = {next(row for row in ordered if row.group == group).name for group in {row.group for row in rows}}
    scores = {row.name: row.scores for row in rows}
    return [
        {
            "family": family,
            "is_shown": test["method"] in leaders and (family != ACROSS or test["other"] in leaders),
            **test,
            "higher_is_better": test["metric"] not in LOWER_IS_BETTER,
        }
        for family, pairs in families.items()
        for test in with_holm(compare_sessions(scores, [(a.name, b.name) for a, b in pairs], users))
    ]


def _best_first(rows: Sequence[Compared], headline: str) -> list[Compared]:
    return sorted(rows, key=lambda row: -float(row.scores[headline].mean()))
