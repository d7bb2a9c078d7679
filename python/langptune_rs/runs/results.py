"""The files that an evaluation writes into a run's folder. Those of the test split carry plain names."""

from __future__ import annotations

import json
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from langptune_rs.data.store.tables import read_whole_parquet
from langptune_rs.errors import DataError, RunError

TEST = "test"
BASELINE = "LangPTune-0"
"""The method that every p-value of the tables is against: the same two models, untrained."""
TABLES = ("methods", "sampled", "parts", "sampled_parts")
"""The tables of methods. A part is one of two trained models with the other one untrained."""
PARTS = {"contrastive": "trained embedder, initial policy", "rlso": "initial embedder, trained policy"}
"""The parts by the phase that each of them keeps, in plain words."""


def results_path(run: Path, split: str = TEST) -> Path:
    """Path of the JSON file with the mean, interval and p-value of every method and metric, and the comparisons."""
    return run / f"results{_suffix(split)}.json"


def per_user_path(run: Path, split: str = TEST) -> Path:
    """Path of the Parquet file with one row for each table, method and session: its metrics and the ranks behind."""
    return run / f"per_user{_suffix(split)}.parquet"


def profiles_path(run: Path, split: str = TEST) -> Path:
    """Path of the Parquet file with one row for each profile that was written."""
    return run / f"profiles{_suffix(split)}.parquet"


def steerability_path(run: Path, split: str = TEST) -> Path:
    """Path of the JSON file with what edits of profiles do to rankings."""
    return run / f"steerability{_suffix(split)}.json"


def read_steerability(run: Path, split: str = TEST) -> dict[str, Any] | None:
    """The content of `steerability_path`, None where it was not measured. Raises `RunError` for a damaged file."""
    path = steerability_path(run, split)
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        is_whole = isinstance(found, dict) and all(
            isinstance(found.get(key), kind) for key, kind in _STEERABILITY.items()
        )
    except (ValueError, RecursionError):
        is_whole = False
    if not is_whole:
        raise RunError(
            f"{path} is damaged. `langptune evaluate {run} --split {split} --steerability` writes it again, from what "
            "it has kept."
        )
    whole: dict[str, Any] = found
    return whole


_STEERABILITY: dict[str, type] = {
    **dict.fromkeys(("num_users", "num_items", "num_sessions_read", "k"), int),
    **dict.fromkeys(("tags", "variants", "policies", "figures", "comparisons", "strengths"), list),
    **dict.fromkeys(("protocol", "judge", "units"), dict),
}


def read_results(run: Path, split: str = TEST) -> dict[str, Any]:
    """The content of `results_path`. "comparisons" is None where an earlier version wrote it.

    Raises `RunError` when the run has not been evaluated on `split`, and for a file that no evaluation wrote.
    """
    path = results_path(run, split)
    if not path.is_file():
        raise RunError(
            f"{run} has no results on the {split} split: there is no {path.name} in it. "
            f"Run `langptune evaluate {run} --split {split}` first."
        )
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        fault = next(_faults(results), None)
    except (ValueError, RecursionError) as error:
        fault = f"is no JSON: {error or type(error).__name__}"
    if fault is not None:
        raise _damaged(path, fault, run, split)
    whole: dict[str, Any] = _EARLIER | results
    return whole


PER_USER = pl.Schema(
    {
        "table": pl.String(),
        "method": pl.String(),
        "session_id": pl.Int64(),
        "user_id": pl.String(),
        "ranks": pl.List(pl.Int64()),
    }
)
"""Columns of `per_user_path` beside one for each metric."""
PROFILES = pl.Schema(
    {
        "policy": pl.String(),
        "decoding": pl.String(),
        "session_id": pl.Int64(),
        "text": pl.String(),
        "tokens": pl.Int64(),
        "finished": pl.Boolean(),
        "copied_share": pl.Float64(),
    }
)
"""Columns of `profiles_path`."""


def read_per_user(run: Path, split: str = TEST) -> pl.DataFrame:
    """The columns `PER_USER` of `per_user_path`. Raises `RunError` for a file that is missing or damaged."""
    return _read(per_user_path(run, split), PER_USER, run, split)


def read_scores(run: Path, split: str = TEST) -> pl.DataFrame:
    """The columns `PER_USER` of `per_user_path`, "target", and one for each metric, null where a method lacks it.

    Raises `RunError` for a file that is missing or damaged.
    """
    metrics = dict.fromkeys(read_results(run, split)["methods"][BASELINE], pl.Float64())
    schema = pl.Schema({**PER_USER, "target": pl.String(), **metrics})
    return _read(per_user_path(run, split), schema, run, split, may_be_null=metrics)


def read_profiles(run: Path, split: str = TEST) -> pl.DataFrame:
    """The columns `PROFILES` of `profiles_path`. Raises `RunError` for a file that is missing or damaged."""
    return _read(profiles_path(run, split), PROFILES, run, split)


def unlike_results(path: Path, what: str, run: Path, split: str = TEST) -> RunError:
    """The error for a file of an evaluation that does not say what the others say."""
    return _damaged(path, what, run, split)


def _read(
    path: Path, schema: pl.Schema, run: Path, split: str, may_be_null: Container[str] = frozenset()
) -> pl.DataFrame:
    if not path.is_file():
        raise _damaged(path, "is missing", run, split)
    try:
        table = read_whole_parquet(path)
    except DataError as error:
        raise RunError(f"{error} {_again(run, split)}") from error
    for name, kind in schema.items():
        if table.schema.get(name) != kind:
            raise _damaged(path, f"has no column {name} of type {kind}", run, split)
        if table[name].null_count() and name not in may_be_null:
            raise _damaged(path, f"lacks values of {name}", run, split)
    return table.select(schema.keys())


def _damaged(path: Path, what: str, run: Path, split: str) -> RunError:
    return RunError(f"{path} {what}. {_again(run, split)}")


def _again(run: Path, split: str) -> str:
    return f"`langptune evaluate {run} --split {split}` writes it again."


_SCORES: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("mean", "low", "high"), (int, float)),
    **dict.fromkeys(("p_value", "p_holm"), (int, float, type(None))),
}
_STATISTICS: dict[str, tuple[type, ...]] = dict.fromkeys(("tokens", "overlong_rate", "copied_share"), (int, float))
_KEYS: dict[str, tuple[type, ...]] = {
    "split": (str,),
    "num_sessions": (int,),
    "split_size": (int,),
    "num_items": (int,),
    "methods": (dict,),
    "sampled": (dict,),
    "parts": (dict,),
    "profiles": (dict,),
    "sampled_profiles": (dict,),
    "seconds": (int, float),
    "config": (dict,),
    "versions": (dict,),
}
_EARLIER: dict[str, Any] = {"sampled_parts": {}, "comparisons": None}
"""Keys that earlier versions did not write."""
_COMPARISON: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("method", "other", "decoding", "metric"), (str,)),
    **dict.fromkeys(("difference", "p"), (int, float)),
    "interval": (list,),
}
_CONFIG: dict[str, tuple[type, ...]] = {
    "method": (str,),
    "max_tokens": (int,),
    "temperature": (int, float),
    "samples": (int,),
    "k": (int,),
}


def _faults(results: Any) -> Iterator[str]:
    """What is wrong with the content of a file of results, as what follows its name in a sentence."""
    yield from _wrong(results, _KEYS, "")
    later = {"sampled_parts": (dict,), "comparisons": (list,)}
    yield from _wrong(results, {key: kind for key, kind in later.items() if key in results}, "")
    config = results["config"]
    yield from _wrong(config, _CONFIG, "config.")
    headline = f"ndcg@{config['k']}"
    for method in (BASELINE, config["method"]):
        if method not in results["methods"]:
            yield f"has no methods.{method}"
    metrics = results["methods"][BASELINE]
    for table in TABLES:
        for method, scores in results.get(table, {}).items():
            place = f"{table}.{method}"
            if not isinstance(scores, dict) or headline not in scores or scores.keys() != metrics.keys():
                yield f"has other metrics in {place} than in methods.{BASELINE}"
            for metric, numbers in scores.items():
                if numbers is not None or metric == headline or method in (BASELINE, config["method"]):
                    yield from _wrong(numbers, _SCORES, f"{place}.{metric}.")
    if results["methods"][config["method"]][headline]["p_value"] is None:
        yield f"has no methods.{config['method']}.{headline}.p_value"
    for number, row in enumerate(results.get("comparisons", [])):
        yield from _wrong(row, _COMPARISON, f"comparisons[{number}].")
        if [type(bound) in (int, float) for bound in row["interval"]] != [True, True]:
            yield f"has no two numbers in comparisons[{number}].interval"
    for part in ("profiles", "sampled_profiles"):
        for policy, numbers in results[part].items():
            yield from _wrong(numbers, _STATISTICS, f"{part}.{policy}.")


def _wrong(values: Any, kinds: Mapping[str, tuple[type, ...]], prefix: str) -> Iterator[str]:
    """Keys that `values` lacks, or has with a value of another kind."""
    if not isinstance(values, dict):
        yield f"has no keys in {prefix.removesuffix('.') or 'it'}"
    for key, kind in kinds.items():
        if key not in values:
            yield f"has no {prefix}{key}"
        elif type(values[key]) not in kind:
            yield f"has {prefix}{key} = {json.dumps(values[key])[:80]}, which is of another kind than it must be"


def _suffix(split: str) -> str:
    return "" if split == TEST else f"-{split}"
