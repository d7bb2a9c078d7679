"""The runs of an ablation: one for each value and seed, in folders of their own."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from langptune_rs.config import RunConfig, load_config
from langptune_rs.distributed.failures import ends_the_process
from langptune_rs.errors import TrainingError
from langptune_rs.experiments.ablate.ablations import Ablation, Value, folders_of, label, overrides_of
from langptune_rs.experiments.evaluate import writes_unlike
from langptune_rs.experiments.trained_runs import evaluated, trained
from langptune_rs.models.memory import free_memory

EMBEDDER = "embedder"
"""The folder of the run that trains the one embedder of `policy_only`."""


@dataclass(frozen=True)
class Plan:
    """What is trained: the recipe with the user's settings, and what each value changes in it."""

    ablation: Ablation
    recipe: str | None
    overrides: tuple[str, ...]
    config: RunConfig
    """The recipe with those overrides."""
    values: tuple[Value, ...]
    own: Value
    """The recipe's own value."""
    seeds: tuple[int, ...]
    split: str
    policy_only: bool
    notes: tuple[str, ...] = ()
    """What a reader of the numbers must know, in sentences."""

    def config_of(self, value: Value, seed: int, output: Path) -> RunConfig:
        """The configuration of a run. Raises `ConfigError` for a value that the recipe does not take."""
        fixed = [f"{key}={json.dumps(setting)}" for key, setting in self.ablation.with_all.items()]
        own = [*overrides_of(self.ablation, value, self.config), f"seed={seed}"]
        if self.policy_only:
            embedder = output.absolute() / EMBEDDER / "embedder"
            own += ["method=LangPTune-RLSO", f"embedder.model={json.dumps(str(embedder))}"]
        return load_config(self.recipe, [*fixed, *self.overrides, *own])


def check_values(plan: Plan, output: Path) -> None:
    """Raise `ConfigError` for a value that the recipe does not take, before anything is trained."""
    for value in plan.values:
        plan.config_of(value, plan.seeds[0], output)


@dataclass(frozen=True)
class FailedRun:
    """A run that could not be trained: the table says why, and the others go on."""

    value: Value
    seed: int
    reason: str


def run_all(
    plan: Plan, output: Path, after_seed: Callable[[Mapping[Value, Sequence[Path]], Sequence[FailedRun]], None]
) -> None:
    """Train and evaluate a run for each seed and value, and call `after_seed` with the runs so far after each seed.

    Finished runs are kept, and what was interrupted goes on. A run whose training fails, as when its loss is not a
    number or memory is too small, is left out, and tried again the next time. `after_seed` waits for a run of the
    recipe's own value, with which the others are compared.

    Raises what `trained` and `evaluated` raise, and a `TrainingError` where the recipe's own value has no run at all.
    """
    if plan.policy_only:
        _say(f"one embedder for all policies: {output / EMBEDDER}")
        trained(output / EMBEDDER, load_config(plan.recipe, [*plan.overrides, "method=LangPTune-CL"]))
    folders, total = folders_of(plan.values), len(plan.values) * len(plan.seeds)
    done: dict[Value, list[Path]] = {}
    failed: list[FailedRun] = []
    number = 0
    for seed in plan.seeds:
        of_seed: list[tuple[RunConfig, Path]] = []
        for value in plan.values:
            number += 1
            run = output / folders[value] / f"seed-{seed}"
            _say(f"{plan.ablation.name} {label(plan.ablation, value)}, seed {seed} ({number}/{total}): {run}")
            config = plan.config_of(value, seed, output)
            alike = next((other for theirs, other in of_seed if not writes_unlike(theirs, config)), None)
            try:
                finished = evaluated(trained(run, config), plan.split, alike)
            except TrainingError as error:
                if ends_the_process(error):
                    raise
                failed.append(FailedRun(value, seed, str(error)))
                _say(f"failed: {error}")
            else:
                done.setdefault(value, []).append(finished)
                of_seed.append((config, run))
            free_memory()  # the error of a run that failed held its models
        if plan.own in done:
            after_seed({value: done[value] for value in plan.values if value in done}, failed)
    if plan.own not in done:
        raise TrainingError(
            f"{label(plan.ablation, plan.own)} is the recipe's own value, and none of its runs could be trained, so "
            f"that there is nothing to compare with. {failed[-1].reason}"
        )


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
