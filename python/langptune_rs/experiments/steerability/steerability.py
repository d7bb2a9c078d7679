"""`langptune evaluate RUN --steerability`: what edits of profiles do, before and after training."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import polars as pl

from langptune_rs.data import Sessions
from langptune_rs.data.store.folder import read_item_fields
from langptune_rs.errors import RunError
from langptune_rs.experiments.kept import Kept
from langptune_rs.experiments.machine import versions
from langptune_rs.experiments.steerability import faithfulness, readability
from langptune_rs.experiments.steerability.catalogs import TaggedCatalog
from langptune_rs.experiments.steerability.edits import APPENDED, INSERTED, REQUEST
from langptune_rs.experiments.steerability.faithfulness import measure_sessions
from langptune_rs.experiments.steerability.figures import comparisons, of_columns, of_edits, strength_curves, summary
from langptune_rs.experiments.steerability.judge import Judge, find_judge
from langptune_rs.experiments.steerability.measuring import Case, measure_edits
from langptune_rs.experiments.steerability.protocol import DEFINITION, POOL_SIZE, REQUEST_WEIGHTS, Protocol
from langptune_rs.experiments.steerability.readability import read_profiles_of
from langptune_rs.experiments.steerability.tags import Tag, draw_tags, named_tags
from langptune_rs.experiments.steerability.variants import (
    Model,
    Variant,
    check_others,
    identity,
    open_embedder,
    profiles_of,
    variants_of,
)
from langptune_rs.experiments.trained_runs import evaluated
from langptune_rs.files import locked, write_text
from langptune_rs.models.memory import keep_freed_memory
from langptune_rs.progress import progress
from langptune_rs.runs.folder import data_folder
from langptune_rs.runs.results import TEST, steerability_path
from langptune_rs.runs.trained import TrainedRun
from langptune_rs.seeds import generator

FOLDER = "steerability"
"""The folder in the run where finished parts are kept."""
SESSIONS_PER_PART = 10
"""A kill loses at most one part."""


def measure_steerability(
    run: Path, *, split: str = TEST, others: Sequence[Path] = (), protocol: Protocol | None = None
) -> dict[str, Any]:
    """Measure how far edits of profiles move rankings, for each combination of a policy and an embedder.

    A run that has not been evaluated on the split is evaluated first. What is finished is kept in the run's folder
    `steerability`, and a call that was interrupted goes on with the same numbers.

    Args:
        run: the folder of a trained run.
        split: whose sessions are measured.
        others: further runs on the same data, such as one that trained one model alone.
        protocol: how much is measured.

    Returns:
        The content of steerability.json, which `docs/steerability.md` explains.

    Raises:
        RunError: for a folder that holds no trained run, runs of other data, or fewer than two users.
        InputError: for a tag that cannot be measured, or a run given twice.
        ModelError: when the judge is not there.
        DataError: when the data set has no session in `split`.
    """
    started = time.monotonic()
    keep_freed_memory()
    protocol = protocol or Protocol()
    first = TrainedRun.open(run, ())
    runs = {folder: TrainedRun.open(folder, ()) for folder in (first.folder, *map(Path, others))}
    check_others(first, [runs[folder] for folder in map(Path, others)])
    variants = variants_of(first, [runs[folder] for folder in map(Path, others)])
    judge = find_judge(protocol.judge, first.config.embedder)
    items = read_item_fields(data_folder(first.config, first.folder), first.dataset.catalog)
    tags = (
        named_tags(items, protocol.tags, protocol.min_items)
        if protocol.tags
        else draw_tags(items, protocol.tags_per_stratum, protocol.min_items, protocol.seed)
    )
    for folder in runs:
        evaluated(folder, split)
    folder = first.folder / FOLDER
    folder.mkdir(exist_ok=True)
    with locked(folder / ".lock", lambda holder: RunError(f"Another process{holder} is measuring {run}.")):
        measured = _Measurement(runs, variants, tags, judge, split, protocol, Kept(folder))
        results = {
            **measured.results(),
            "seconds": time.monotonic() - started,
            "versions": versions(),
        }
        write_text(steerability_path(first.folder, split), json.dumps(results, indent=1, allow_nan=False) + "\n")
    return results


@dataclass
class _Measurement:
    """One measurement: the variants of runs over the same users and tags."""

    runs: Mapping[Path, TrainedRun]
    variants: Sequence[Variant]
    tags: Sequence[Tag]
    judge: Judge
    split: str
    protocol: Protocol
    kept: Kept

    @cached_property
    def first(self) -> TrainedRun:
        """The run that is measured; others stand beside it."""
        return next(iter(self.runs.values()))

    @cached_property
    def profiles(self) -> dict[Model, dict[int, str]]:
        """What each policy wrote, by session id."""
        return {policy: profiles_of(self.runs, policy, self.split) for policy in self._policies}

    @cached_property
    def _policies(self) -> list[Model]:
        return list(dict.fromkeys(variant.policy for variant in self.variants))

    @cached_property
    def evaluated_sessions(self) -> Sessions:
        """The sessions that every policy wrote a profile for, in the order of the data set."""
        sessions = self.first.dataset.sessions.select(self.split)
        there = set.intersection(*(set(texts) for texts in self.profiles.values()))
        return sessions.take([row for row, session in enumerate(sessions.session_ids.tolist()) if session in there])

    @cached_property
    def sessions(self) -> Sessions:
        """One session of each of the users that are measured, in an order drawn from the seed.

        With more users the first ones stay the same. Raises `RunError` for fewer than two.
        """
        sessions = self.evaluated_sessions
        order = generator(self.protocol.seed, "steerability", "users").permutation(len(sessions))
        users = sessions.user_ids.to_list()
        of_users: dict[str, int] = {}
        for row in order.tolist():
            of_users.setdefault(users[row], row)
        rows = list(of_users.values())[: self.protocol.num_users]
        if len(rows) < 2:
            raise RunError(
                f"the profiles of the {self.split} split are of {len(rows)} user(s) that all runs have evaluated: "
                "intervals, tests and another user's profile need at least two"
            )
        return sessions.take(rows)

    @cached_property
    def parts(self) -> list[range]:
        """The sessions in parts that are measured, kept and taken up again one by one; none has a single session."""
        starts = range(0, len(self.sessions), SESSIONS_PER_PART)
        found = [range(start, min(start + SESSIONS_PER_PART, len(self.sessions))) for start in starts]
        if len(found[-1]) == 1:
            found[-2:] = [range(found[-2].start, found[-1].stop)]
        return found

    def results(self) -> dict[str, Any]:
        """The content of steerability.json, without times and versions."""
        edits, sessions = self._measured()
        policies = {self._name(policy): policy for policy in self._policies}
        read = {
            name: read_profiles_of(
                self.profiles[policy], self.evaluated_sessions, self.first.dataset, self.judge, self.protocol.seed
            )
            for name, policy in policies.items()
        }
        figures: list[dict[str, Any]] = []
        tests: list[dict[str, Any]] = []
        print("Intervals and tests", file=sys.stderr, flush=True)
        for key, by_variant in (
            *of_edits(edits),
            *_named("faithfulness", of_columns(sessions, list(faithfulness.COLUMNS)[4:])),
            *_named("readability", of_columns(read, list(readability.COLUMNS)[2:])),
        ):
            figures += [{"variant": name, **key, **summary(values)} for name, values in by_variant.items()]
            tests += [{**key, **row} for row in comparisons(by_variant)]
        return {
            "definition": DEFINITION,
            "run": str(self.first.folder),
            "split": self.split,
            "num_users": len(self.sessions),
            "num_sessions_read": len(self.evaluated_sessions),
            "num_items": len(self.first.dataset.catalog),
            "k": self.k,
            "protocol": self.protocol.to_json(),
            "phrases": {
                "appended": APPENDED,
                "inserted": INSERTED,
                "request": REQUEST,
                "request_weights": REQUEST_WEIGHTS,
                "pool_size": POOL_SIZE,
            },
            "tags": [
                {"name": tag.name, "kind": tag.kind, "stratum": tag.stratum, "num_items": tag.num_items}
                for tag in self.tags
            ],
            "judge": {"name": self.judge.name, "is_embedder": self.judge.is_embedder},
            "variants": [
                {
                    "name": v.name,
                    "run": str(v.policy.run),
                    "trained_policy": v.policy.is_trained,
                    "trained_embedder": v.embedder.is_trained,
                }
                for v in self.variants
            ],
            "policies": list(policies),
            "units": {
                name: {unit or "none": num for unit, num in frame["unit"].value_counts().sort("unit").iter_rows()}
                for name, frame in sessions.items()
            },
            "figures": figures,
            "comparisons": tests,
            "strengths": strength_curves(edits),
        }

    @property
    def k(self) -> int:
        """How many items a person sees."""
        return self.first.config.evaluation.k

    def _name(self, policy: Model) -> str:
        """A policy's name: the first variant that it writes for says whose it is."""
        own = next(variant for variant in self.variants if variant.policy == policy)
        if not policy.is_trained:
            return "initial policy"
        of_first = policy.run == self.first.folder
        return "trained policy" if of_first else f"trained policy of {own.name}"

    def _measured(self) -> tuple[dict[str, pl.DataFrame], dict[str, pl.DataFrame]]:
        """The rows of all edits and of all sessions, by variant. Only one embedder is in memory at a time."""
        edits: dict[str, list[pl.DataFrame]] = {variant.name: [] for variant in self.variants}
        sessions: dict[str, list[pl.DataFrame]] = {variant.name: [] for variant in self.variants}
        models = {model: identity(self.runs, model) for model in dict.fromkeys(v.embedder for v in self.variants)}
        jobs = [(v, part) for model in models for v in self.variants if v.embedder == model for part in self.parts]
        done = sum(
            len(part) for v, part in jobs if self.kept.has("sessions", self._decides(v, part, models[v.embedder]))
        )
        opened: _Opened | None = None
        with progress(sum(len(part) for _, part in jobs), "sessions", done) as advance:
            for variant, part in jobs:
                if opened is None or opened.model != variant.embedder:
                    opened = None  # its memory is free before the next one is loaded
                    opened = _Opened(self, variant.embedder, models[variant.embedder])
                decides, cases = self._decides(variant, part, models[variant.embedder]), self._cases(variant, part)
                is_new = not self.kept.has("sessions", decides)
                edits[variant.name].append(self.kept.table("edits", decides, partial(opened.edits, cases)))
                sessions[variant.name].append(self.kept.table("sessions", decides, partial(opened.sessions, cases)))
                if is_new:
                    advance(len(part), variant.name)
        return {name: pl.concat(own) for name, own in edits.items()}, {
            name: pl.concat(own) for name, own in sessions.items()
        }

    def _cases(self, variant: Variant, part: range) -> list[Case]:
        """The sessions of a part. Each stands beside the profile of the next one, whose user is another."""
        texts = [self.profiles[variant.policy][session] for session in self.sessions.session_ids[list(part)].tolist()]
        return [
            Case(
                session_id=int(self.sessions.session_ids[row]),
                user_id=self.sessions.user_ids[row],
                history=self.sessions.histories[row],
                target=int(self.sessions.targets[row]),
                text=text,
                other=other,
            )
            for row, text, other in zip(part, texts, [*texts[1:], texts[0]], strict=True)
        ]

    def _decides(self, variant: Variant, part: range, embedder: Mapping[str, Any]) -> dict[str, Any]:
        """All that decides what is measured of a part."""
        return {
            "definition": DEFINITION,
            "embedder": embedder,
            "data": self.first.dataset.content,
            "tags": [[tag.name, tag.kind] for tag in self.tags],
            "judge": self.judge.name,
            "seed": self.protocol.seed,
            "k": self.k,
            "cases": [[case.session_id, case.text, case.other] for case in self._cases(variant, part)],
        }


class _Opened:
    """An embedder with its catalogs, which are loaded when something is measured by them."""

    def __init__(self, of: _Measurement, model: Model, decides: Mapping[str, Any]):
        self.model = model
        self._of, self._decides = of, decides

    @cached_property
    def _catalog(self) -> TaggedCatalog:
        dataset = self._of.first.dataset
        decides = {"embedder": self._decides, "data": dataset.content}
        return TaggedCatalog(
            open_embedder(self._of.runs, self.model), dataset.catalog, self._of.tags, self._of.kept, decides
        )

    def edits(self, cases: Sequence[Case]) -> pl.DataFrame:
        """The rows of `measuring.COLUMNS`."""
        of = self._of
        return measure_edits(cases, self._catalog, of.tags, of.judge.similarities, k=of.k, seed=of.protocol.seed)

    def sessions(self, cases: Sequence[Case]) -> pl.DataFrame:
        """The rows of `faithfulness.COLUMNS`."""
        of, texts = self._of, self._of.first.dataset.catalog.texts
        return measure_sessions(
            cases, self._catalog.recommender, of.tags, of.judge, texts, k=of.k, seed=of.protocol.seed
        )


def _named(section: str, figures: Iterator[tuple[str, Any]]) -> Iterator[tuple[dict[str, Any], Any]]:
    return (({"section": section, "figure": column}, values) for column, values in figures)
