"""What the runs of an ablation show: a row for each value, and its difference to the recipe's own value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from langptune_rs.baselines.method import Decoding
from langptune_rs.data import Dataset
from langptune_rs.errors import RunError
from langptune_rs.evaluation.significance import bootstrap_intervals
from langptune_rs.evaluation.summary import compare_sessions, with_holm
from langptune_rs.experiments.compare.from_runs import rows_of_runs
from langptune_rs.experiments.compare.guards import guard_rows, summary
from langptune_rs.experiments.compare.task import Ranked
from langptune_rs.experiments.comparisons import Scores, scores_of
from langptune_rs.experiments.seeds import average_seeds, compare_seeds
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.metrics_log import read_metrics, step_seconds
from langptune_rs.runs.results import BASELINE, PARTS, read_results

DECODINGS: tuple[Decoding, ...] = get_args(Decoding)


def rows_of(runs: Mapping[str, Sequence[Path]], own: str, split: str) -> tuple[pl.DataFrame, list[dict[str, Any]]]:
    """The sessions of a split, and the row of each value in ablation.json.

    A session's scores are averaged over the seeds before any interval and any test, as in `compare_seeds`; sessions of
    one user are drawn and swapped together. A row has

    - "metrics" and "untrained": {decoding: {metric: {"mean", "low", "high", "seed_sd"}}} of the method that the runs
      have trained, and of LangPTune-0 with the same settings;
    - "difference": {decoding: {metric: {"difference", "interval", "p", "p_holm"}}}, the value less the recipe's own
      one; Holm's correction is over the values of one metric and decoding. None for the own one;
    - "gain": what the trained policy has gained over the initial one with the same embedder, or the whole method where
      no policy is trained: {"over", decoding: {metric: {"difference", "interval", "p", "by_seed", "seed_sd"}}};
    - "minutes" of training, "overlong", "copied_share" and "tokens" by decoding, "repetition": see `_costs`.

    Args:
        runs: the evaluated runs of each value by its label; they differ in the value and the seed alone.
        own: the label of the recipe's own value.
        split: of the sessions.

    Raises:
        RunError: see `compare_seeds`; also for values that were evaluated on different sessions.
    """
    averaged = {label: average_seeds(of_value, split) for label, of_value in runs.items()}
    sessions = averaged[own][0]
    for label, (others, _) in averaged.items():
        if not others.equals(sessions):
            raise RunError(
                f"{runs[label][0]} and {runs[own][0]} were evaluated on different sessions. Evaluate both again with "
                f"`langptune evaluate RUN --split {split}`."
            )
    users = sessions["user_id"].to_list()
    tables = {label: found for label, (_, found) in averaged.items()}
    differences = _differences(tables, own, read_config(runs[own][0]).method, users)
    return sessions, [
        {
            "label": label,
            "is_own": label == own,
            "seeds": [read_config(run).seed for run in of_value],
            "metrics": _metrics(tables[label], read_config(of_value[0]).method, of_value, split, users),
            "untrained": _metrics(tables[label], BASELINE, of_value, split, users),
            "difference": None if label == own else differences[label],
            "gain": _gain(of_value, split),
            **_costs(of_value, split),
        }
        for label, of_value in runs.items()
    ]


def guards_of(
    runs: Mapping[str, Sequence[Path]], sessions: pl.DataFrame, ranked: Ranked, dataset: Dataset, folder: Path
) -> dict[str, dict[str, Any]]:
    """{label: {decoding: what the profiles of the trained method rest on}}, as comparison.json has it for a method.

    What is measured of a run is kept in `folder`. Raises what `guard_rows` raises.
    """
    users = sessions["user_id"].to_list()
    found: dict[str, dict[str, Any]] = {}
    for label, of_value in runs.items():
        rows, _ = rows_of_runs(of_value, ranked, sessions)
        trained = [row for row in rows if row.method == read_config(of_value[0]).method]
        found[label] = {
            row.decoding: summary(row.scores[f"ndcg@{ranked.k}"], row.guards, users)
            for row in guard_rows(trained, sessions, ranked, dataset, folder)
            if row.decoding is not None and row.guards is not None
        }
    return found


def _metrics(
    tables: Mapping[str, Scores], method: str, runs: Sequence[Path], split: str, users: ArrayLike
) -> dict[str, Any]:
    """The means of a method over the seeds with their 95% intervals, and the standard deviation of the seeds' means."""
    found: dict[str, Any] = {}
    for decoding in DECODINGS:
        scores = scores_of(tables, decoding).get(method)
        if scores is None:
            continue
        intervals = bootstrap_intervals(scores, clusters=users)
        singles = [scores_of(average_seeds([run], split)[1], decoding)[method] for run in runs]
        found[decoding] = {
            metric: {
                "mean": float(values.mean()),
                "low": intervals[metric][0],
                "high": intervals[metric][1],
                "seed_sd": float(np.std([s[metric].mean() for s in singles], ddof=1)) if len(runs) > 1 else None,
            }
            for metric, values in scores.items()
        }
    return found


def _differences(
    tables: Mapping[str, Mapping[str, Scores]], own: str, method: str, users: ArrayLike
) -> dict[str, dict[str, Any]]:
    """{label: {decoding: {metric: ...}}} of every value less the own one."""
    found: dict[str, dict[str, Any]] = {label: {} for label in tables if label != own}
    for decoding in DECODINGS:
        scores = {label: scores_of(of_value, decoding).get(method) for label, of_value in tables.items()}
        there = {label: of_value for label, of_value in scores.items() if of_value is not None}
        if own not in there:
            continue
        for row in with_holm(compare_sessions(there, [(label, own) for label in there if label != own], users)):
            numbers = {key: row[key] for key in ("difference", "interval", "p", "p_holm")}
            found[row["method"]].setdefault(decoding, {})[row["metric"]] = numbers
    return found


def _gain(runs: Sequence[Path], split: str) -> dict[str, Any]:
    """What the trained policy has gained over the initial one with the same embedder; see `rows_of`."""
    method = read_config(runs[0]).method
    over = PARTS["contrastive"] if method == "LangPTune" else BASELINE
    found: dict[str, Any] = {"over": over}
    for row in compare_seeds(runs, split)["comparisons"]:
        if (row["method"], row["other"]) == (method, over):
            kept = {key: row[key] for key in ("difference", "interval", "p", "by_seed", "seed_sd")}
            found.setdefault(row["decoding"], {})[row["metric"]] = kept
    return found


def _costs(runs: Sequence[Path], split: str) -> dict[str, Any]:
    """The time of training and the looks of profiles, means over the seeds.

    "minutes" are those of the optimizer steps, with the rollouts of the policy's. "tokens", "overlong" (the share of
    profiles without an end) and "copied_share" are those of the evaluated profiles, by decoding. "repetition" is that
    of the last rollout, the share of runs of three words that a profile writes again; None where no policy is trained.
    """
    method = read_config(runs[0]).method
    logs = [read_metrics(run) for run in runs]
    results = [read_results(run, split) for run in runs]
    last = [[step["profile/repetition"] for step in log if "profile/repetition" in step][-1:] for log in logs]
    looks = {
        name: {
            decoding: float(np.mean([found[part][method][key] for found in results]))
            for decoding, part in zip(DECODINGS, ("profiles", "sampled_profiles"), strict=True)
            if all(method in found[part] for found in results)
        }
        for name, key in (("tokens", "tokens"), ("overlong", "overlong_rate"), ("copied_share", "copied_share"))
    }
    return {
        "minutes": float(np.mean([step_seconds(log) for log in logs])) / 60,
        **looks,
        "repetition": float(np.mean([value for values in last for value in values])) if all(last) else None,
    }
