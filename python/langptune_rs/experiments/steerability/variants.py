"""What is measured side by side: the policies and embedders of runs, before and after training, in combination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from langptune_rs.errors import InputError, RunError
from langptune_rs.files import file_hash
from langptune_rs.models.embedder import Embedder
from langptune_rs.runs.results import BASELINE, PARTS, profiles_path, read_profiles, unlike_results
from langptune_rs.runs.trained import TrainedRun

_PARTS = {"contrastive": (False, True), "rlso": (True, False)}
"""The parts of a run that trained both models: whether the policy is the trained one, and whether the embedder is."""


@dataclass(frozen=True)
class Model:
    """The policy or the embedder of a run, as training left it or as it began."""

    run: Path
    is_trained: bool


@dataclass(frozen=True)
class Variant:
    """A policy whose profiles an embedder ranks by."""

    name: str
    policy: Model
    embedder: Model


def variants_of(run: TrainedRun, others: Sequence[TrainedRun]) -> list[Variant]:
    """LangPTune-0, the parts of a run that trained both models, what the run trained, and what each other run trained.

    Raises `InputError` for a run that is given twice.
    """

    def variant(name: str, of: TrainedRun, policy: bool, embedder: bool) -> Variant:
        return Variant(name, Model(of.folder, policy), Model(of.folder, embedder))

    config = run.config
    found = [variant(BASELINE, run, False, False)]
    if config.trains_policy and config.trains_embedder:
        found += [variant(PARTS[part], run, *trained) for part, trained in _PARTS.items()]
    found.append(variant(config.method, run, config.trains_policy, config.trains_embedder))
    seen = {run.folder.resolve()}
    for other in others:
        if other.folder.resolve() in seen:
            raise InputError(f"{other.folder} is given twice: name other runs with --with")
        seen.add(other.folder.resolve())
        name: str = other.config.method
        if any(name == there.name for there in found):
            name = f"{name} ({other.folder.name})"
        found.append(variant(name, other, other.config.trains_policy, other.config.trains_embedder))
    return found


def check_others(run: TrainedRun, others: Sequence[TrainedRun]) -> None:
    """Raise `RunError` for another run of other data, whose profiles and items are not those of `run`."""
    for other in others:
        if other.dataset.content != run.dataset.content:
            raise RunError(
                f"{other.folder} was trained on other data than {run.folder}, so that they have no users in common. "
                "Give runs of one data set."
            )


def profiles_of(runs: Mapping[Path, TrainedRun], model: Model, split: str) -> dict[int, str]:
    """The greedy profiles that a policy has written for the sessions of a split, by session id.

    Raises `RunError` when the run has none.
    """
    run = runs[model.run]
    name = run.config.method if model.is_trained else BASELINE
    written = read_profiles(run.folder, split).filter(pl.col("policy") == name, pl.col("decoding") == "greedy")
    if written.is_empty():
        raise unlike_results(profiles_path(run.folder, split), f"has no profiles of {name}", run.folder, split)
    return dict(zip(written["session_id"].to_list(), written["text"].to_list(), strict=True))


def identity(runs: Mapping[Path, TrainedRun], model: Model) -> dict[str, Any]:
    """All that decides what an embedder returns, as JSON values: the hashes of its files, or the name it began from."""
    run = runs[model.run]
    own = {"embedder": run.config.embedder.model_dump(mode="json"), "precision": run.config.engine.precision}
    if not model.is_trained:
        return own
    folder = run.folder / "embedder"
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    return {**own, "files": {str(path.relative_to(folder)): file_hash(path) for path in files}}


def open_embedder(runs: Mapping[Path, TrainedRun], model: Model) -> Embedder:
    """The embedder, loaded. Raises `RunError` where training has left none, or it has changed."""
    run = runs[model.run]
    if model.is_trained:
        run = TrainedRun.open(model.run, ["embedder"])
    return run.embedder(trained=model.is_trained)
