"""The rows of methods whose models come from training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl

from langptune_rs.baselines.langptune import LangPTune, LangPTuneCl
from langptune_rs.baselines.method import Decoding
from langptune_rs.baselines.registry import find_method
from langptune_rs.config import RunConfig
from langptune_rs.config.contrastive import ContrastiveStepConfig
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.errors import RunError
from langptune_rs.experiments.compare.guards import WAY_OUT
from langptune_rs.experiments.compare.rows import Compared, named
from langptune_rs.experiments.compare.settings import Plan, method_settings
from langptune_rs.experiments.compare.task import Ranked
from langptune_rs.experiments.comparisons import scores_of
from langptune_rs.experiments.evaluate import writes_unlike
from langptune_rs.experiments.seeds import average_seeds, deciding_keys
from langptune_rs.runs.folder import CONFIG, MEMORY_KEYS, read_config
from langptune_rs.runs.metrics_log import most_memory, read_metrics, step_seconds
from langptune_rs.runs.origin import read_origin
from langptune_rs.runs.results import BASELINE, PARTS, read_profiles, read_results
from langptune_rs.runs.trained import MODELS, TrainedRun


def rows_of_runs(
    runs: Sequence[Path], ranked: Ranked, sessions: pl.DataFrame | None
) -> tuple[list[Compared], pl.DataFrame | None]:
    """The methods that runs have trained, and LangPTune-0 before them, in both decodings; and the sessions ranked.

    Runs of LangPTune with one iteration are those of LangPTune-CL too, where no others are given: their embedder was
    trained before the policy was, as it would be alone, and they were evaluated with the initial policy's profiles.

    Runs of one method are its seeds; policies that learned by different objectives make different methods. Each must
    have been evaluated on the split, on at least the `sessions` that the other methods rank (None: those of the first
    run). Raises `RunError` for a run of other data, split or sessions.
    """
    by_method: dict[tuple[str, str], list[Path]] = {}
    for run in runs:
        config = read_config(run)
        by_method.setdefault((config.method, objective_of(config)), []).append(run)
    has_cl = any(method == LangPTuneCl.name for method, _ in by_method)
    rows: dict[tuple[str, str, Decoding], Compared] = {}
    for (method, objective), of_seeds in by_method.items():
        seeds = tuple(read_config(run).seed for run in of_seeds)
        own, tables = average_seeds(of_seeds, ranked.split)
        sessions = own if sessions is None else sessions
        places = _places(own, sessions, of_seeds[0], ranked)
        names = {BASELINE: BASELINE, method: method}
        if method == LangPTune.name and not has_cl and read_config(of_seeds[0]).iterations == 1:
            names[LangPTuneCl.name] = PARTS[LangPTuneCl.part]
        for decoding in get_args(Decoding):
            scores = scores_of(tables, decoding)
            singles = [scores_of(average_seeds([run], ranked.split)[1], decoding) for run in of_seeds]
            for name, scored_as in names.items():
                key = name, objective if name == method else "", decoding
                if scored_as not in scores or key in rows:
                    continue
                taken = {metric: values[places] for metric, values in scores[scored_as].items()}
                rows[key] = Compared(
                    method=name,
                    group=find_method(name).group,
                    decoding=decoding,
                    seeds=seeds,
                    scores=taken,
                    seed_means={
                        metric: [float(s[scored_as][metric][places].mean()) for s in singles] for metric in taken
                    },
                    settings={"runs": [str(run) for run in of_seeds]},
                    costs=_costs(of_seeds if name == method else []),
                    failures={},
                    objective=key[1],
                )
    return list(rows.values()), sessions


def objective_of(config: RunConfig) -> str:
    """What the policy of a run learns by; "" for RLSO, and where no policy is trained."""
    objective = config.rlso.objective
    return objective if config.trains_policy and objective != "rlso" else ""


def _costs(runs: Sequence[Path]) -> dict[str, float | None]:
    """What runs note of their costs: the time of their steps, rollouts included, the mean over them, and the memory."""
    logs = [read_metrics(run) for run in runs]
    memory = [found for log in logs if (found := most_memory(log)) is not None]
    return {
        "fit_seconds": float(np.mean([step_seconds(log) for log in logs])) if logs else None,
        "milliseconds": None,
        "peak_memory": max(memory, default=None),
    }


def check_runs(runs: Sequence[Path], ranked: Ranked, embedder: EmbedderConfig | None) -> None:
    """Raise `RunError` for a run that does not belong into one table with the others.

    It is of other data, split or cutoff, of the method, objective and seed of one before it, or began with another
    policy, prompt or embedder; or with another embedder than `embedder`, which other methods of the table read with, if
    any does.
    """
    seen: dict[tuple[str, int], Path] = {}
    for run in runs:
        _check_data(run, ranked)
        config = read_config(run)
        name = named(config.method, objective_of(config))
        if other := seen.get((name, config.seed)):
            raise RunError(
                f"{other} and {run} are both {name} with the seed {config.seed}. Give one of them, or train one with "
                "another --set seed=N."
            )
        seen[name, config.seed] = run
        first = read_config(runs[0])
        differing = [key for key in writes_unlike(first, config) if key != "seed"]
        if config.embedder != first.embedder:
            differing.append("embedder")
        if differing:
            raise RunError(
                f"{runs[0]} and {run} began with another {', '.join(differing)}, so that they have no LangPTune-0 in "
                "common. Compare them one by one."
            )
        if embedder is not None and config.embedder != embedder:
            raise RunError(
                f"{run} began with another embedder than the recipe's, with which the other methods read. Give the "
                f"recipe of the run: --config {run / CONFIG}."
            )


def unlike_training(runs: Sequence[Path]) -> list[str]:
    """What methods of runs differ in beside what they train, as sentences: an ordering of the two shows that too."""
    configs: dict[str, list[RunConfig]] = {}
    for run in runs:
        config = read_config(run)
        configs.setdefault(named(config.method, objective_of(config)), []).append(config)
    said = []
    for (name, of_first), (other, of_second) in combinations(configs.items(), 2):
        ours, theirs = deciding_keys(of_first[0]), deciding_keys(of_second[0])
        parts = [
            f"{key} is {ours[key]} and {theirs[key]}"
            for key in ours
            if ours[key] != theirs[key] and _is_of_both(key, of_first[0], of_second[0])
        ]
        seeds = [sorted(config.seed for config in found) for found in (of_first, of_second)]
        if seeds[0] != seeds[1]:
            parts.append("the seeds are {} and {}".format(*(", ".join(map(str, found)) for found in seeds)))
        if parts:
            said.append(f"{name} and {other} were not trained alike: {'; '.join(parts)}.")
    return said


def _is_of_both(key: str, config: RunConfig, other: RunConfig) -> bool:
    """Whether a key changes what the runs of both recipes train, by more than rounding."""
    if key in MEMORY_KEYS or key == "rlso.objective":  # the names of methods say by which objective
        return False
    if key.startswith("contrastive."):
        return config.trains_embedder and other.trains_embedder
    if key.startswith(("rlso.", "data.num_targets")):
        return config.trains_policy and other.trains_policy
    return key in ("iterations", "data.max_sessions", "engine.max_grad_norm")


def check_models(runs: Sequence[Path], split: str) -> None:
    """Raise `RunError` for a run whose models or profiles are gone, which what is measured of it needs."""
    for run in runs:
        config = read_config(run)
        trains = {"policy": config.trains_policy, "embedder": config.trains_embedder}
        try:
            TrainedRun.open(run, [model for model in MODELS if trains[model]])
            read_profiles(run, split)
        except RunError as error:
            raise RunError(f"What the profiles of {run} rest on cannot be computed: {error} {WAY_OUT}") from error


_ANY_VALUE = ("embedder", "micro_batch_tokens")
"""Fields that `check_runs` compares, or that change no result."""


def check_budget(runs: Sequence[Path], plan: Plan, recipe: RunConfig, values: Mapping[str, Any]) -> None:
    """Raise `RunError` for a run that trained its embedder by other steps than the method of `plan` would take.

    A method that trains the embedder alone, such as EMB-CL, stands beside LangPTune and LangPTune-CL to show what
    profiles add: with more or other steps it would show the steps. What validation chooses may differ, and what the
    user has set, `values`, is the user's choice. Nothing is checked for a method that takes no contrastive steps.
    """
    method = plan.method
    if not issubclass(method.Config, ContrastiveStepConfig):
        return
    own = method_settings(method, recipe, values)
    fields = [name for name in method.Config.model_fields if name not in (*_ANY_VALUE, *plan.choices[0])]
    for run in runs:
        config = read_config(run)
        if not config.trains_embedder:
            continue
        theirs = method_settings(method, config, values)
        differing = [name for name in fields if getattr(theirs, name) != getattr(own, name)]
        if differing:
            was, would = (", ".join(f"{name} = {getattr(s, name)}" for name in differing) for s in (theirs, own))
            raise RunError(
                f"{run} trained its embedder as {method.name} would with {was}, and the recipe given makes that "
                f"{would}: what profiles add could not be told from what the steps do. Give the recipe of the run, "
                f"--config {run / CONFIG}, set {method.name}'s yourself, such as --set {method.name}.{differing[0]}="
                f"{getattr(theirs, differing[0])}, or compare without {method.name}."
            )


def _check_data(run: Path, ranked: Ranked) -> None:
    """Raise `RunError` unless a run was trained on the data set that is compared on."""
    config, origin = read_config(run), read_origin(run)
    if origin is None:
        raise RunError(
            f"{run} does not say what data it was trained on: an earlier version trained it. Train it again."
        )
    if (share := config.data.train_share) != ranked.train_share:
        raise RunError(
            f"{run} was trained on data.train_share = {share:g}, and the others learn from {ranked.train_share:g}. "
            f"Compare on the same share of the train sessions: --set data.train_share={share:g}."
        )
    differing = [part for part, found in origin.data.content.items() if ranked.content.get(part) != found]
    if differing:
        raise RunError(
            f"{run} was trained on data with other {', '.join(differing)} than those compared on. Prepare them as "
            "the run did: give its data as DATA and its recipe as --config."
        )
    results = read_results(run, ranked.split)
    if results["config"]["k"] != ranked.k:
        raise RunError(
            f"{run} was evaluated at k = {results['config']['k']}, and the others at {ranked.k}. "
            "Set evaluation.k to the same."
        )


def _places(own: pl.DataFrame, sessions: pl.DataFrame, run: Path, ranked: Ranked) -> np.ndarray:
    """Where each of the `sessions` stands among those of a run."""
    rows = {row: place for place, row in enumerate(own.select("session_id", "user_id", "target").iter_rows())}
    wanted = list(sessions.select("session_id", "user_id", "target").iter_rows())
    if missing := sum(row not in rows for row in wanted):
        way_out = (
            f"Compare on as many as the run has: --set evaluation.max_sessions={len(own)}"
            if len(own) < len(wanted)
            else "Others were drawn: compare with the data.seed of the run, which stands in its config.toml"
        )
        raise RunError(
            f"{run} was evaluated on {len(own)} {ranked.split} sessions; {missing} of the {len(wanted)} that are "
            f"compared on are not among them. {way_out}, or evaluate the run on more: langptune evaluate {run} "
            f"--sessions {max(len(wanted), len(own))}."
        )
    return np.array([rows[row] for row in wanted])
