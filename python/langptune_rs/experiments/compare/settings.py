"""What each method is fitted with: the recipe's models, what the user sets, and the grid for validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from pydantic import ValidationError

from langptune_rs.baselines.method import Method
from langptune_rs.baselines.registry import METHODS, find_method
from langptune_rs.config import RunConfig
from langptune_rs.config.contrastive import ContrastiveStepConfig
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.config.loading import override_value
from langptune_rs.config.section import Section
from langptune_rs.errors import ConfigError, InputError, nearest

ALL = "all"
"""The name of all methods that need no training run."""
_OF_RUNS = frozenset({"policy", "trained policy", "trained embedder"})
"""What only a run has."""


def comes_from_runs(method: type[Method]) -> bool:
    """Whether a method's models are in the folder of a run, since a comparison trains no policy."""
    return bool(_OF_RUNS & method.needs)


def find_methods(names: str) -> tuple[list[type[Method]], bool]:
    """The methods that a list such as "EASE,MP" or "all" names, in the order of the registry; whether it said "all".

    A name counts in any case. Raises `InputError` for a method that does not exist, with all there are, and for one
    that comes from runs.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise InputError(f"no method is named; write {ALL}, or some of {', '.join(METHODS)}")
    by_lower_case = {name.lower(): method for name, method in METHODS.items()}
    found = {by_lower_case.get(name.lower()) or find_method(name) for name in wanted if name.lower() != ALL}
    for method in found:
        if comes_from_runs(method):
            raise InputError(
                f"{method.name} is trained by `langptune train`: give the folder of its run with --run, and leave it "
                "out of --methods"
            )
    has_all = ALL in (name.lower() for name in wanted)
    return [m for m in METHODS.values() if m in found or (has_all and not comes_from_runs(m))], has_all


def split_overrides(overrides: Sequence[str]) -> tuple[list[str], dict[str, dict[str, Any]]]:
    """The overrides of the recipe, and those of methods by the method's name: `EASE.l2=100`.

    Raises `ConfigError` for one that is not of the form key=value, or whose first word is neither a section of a
    recipe nor a method.
    """
    of_recipe: list[str] = []
    of_methods: dict[str, dict[str, Any]] = {}
    by_lower_case = {name.lower(): name for name in METHODS}
    for override in overrides:
        key, separator, text = override.partition("=")
        method, dot, field = key.strip().partition(".")
        name = by_lower_case.get(method.lower())
        if name is None and dot and method not in RunConfig.model_fields:
            raise ConfigError(
                f"{method} in the override {override!r} is no section of a recipe and no method."
                f"{nearest(method, [*RunConfig.model_fields, *METHODS])} Methods are {', '.join(METHODS)}."
            )
        if name is None:
            of_recipe.append(override)
        elif separator and dot and field:
            of_methods.setdefault(name, {})[field] = override_value(text.lstrip())
        else:
            raise ConfigError(f"The override {override!r} is not of the form METHOD.key=value, such as EASE.l2=100.")
    return of_recipe, of_methods


@dataclass(frozen=True)
class Plan:
    """A method, and the settings of it that validation chooses from; one alone is not tuned."""

    method: type[Method]
    choices: list[dict[str, Any]]
    """The fields that each of them sets; those of an inner section with a dot."""
    settings: list[dict[str, Any]]
    """All fields of the method's Config in each of them."""
    trial: dict[str, Any]
    """Other values, with which they are compared: see `Method.trial`."""

    @property
    def needs_validation(self) -> bool:
        """Whether the method cannot be fitted without validation sessions."""
        return len(self.settings) > 1 or self.method.stops_on_validation


def plan_of(method: type[Method], recipe: RunConfig, values: Mapping[str, Any]) -> Plan:
    """What is tried of a method with the recipe's models, where the user has set `values`.

    Raises what `method_settings` and `Method.choices` raise.
    """
    choices = grid_of(method, recipe, values)
    settings = [method_settings(method, recipe, {**values, **choice}).model_dump(mode="json") for choice in choices]
    trial = {key: value for key, value in method.trial.items() if key not in values}
    return Plan(method, choices, settings, trial)


def grid_of(method: type[Method], recipe: RunConfig, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The settings that validation chooses from, each as the fields it sets; one empty setting if nothing is tuned.

    What the user has set is not tuned.
    """
    given = method.choices(method_settings(method, recipe, values))
    tuned = {field: choices for field, choices in given.items() if field not in values}
    return [dict(zip(tuned, chosen, strict=True)) for chosen in product(*tuned.values())]


def method_settings(method: type[Method], recipe: RunConfig, values: Mapping[str, Any]) -> Section:
    """The settings of a method: its defaults (appendix C), the recipe's models and steps, then `values`.

    A method that reads texts has the recipe's embedder. One that trains it by contrastive steps takes as many as
    LangPTune does, on histories and on profiles together, in the manner of the recipe's section `contrastive`. A key
    of the embedder of such a method is "embedder.max_tokens".

    Raises `ConfigError` with the method's keys for an unknown one, and for a value that a key cannot have.
    """
    keys = _keys(method.Config)
    for key in values:
        if key not in keys:
            raise ConfigError(
                f"There is no key {key!r} of {method.name}.{nearest(key, keys)} "
                + (f"It has {', '.join(keys)}." if keys else "It has nothing to set.")
            )
    given: dict[str, Any] = {}
    if issubclass(method.Config, EmbedderConfig):
        given = recipe.embedder.model_dump()
    if issubclass(method.Config, ContrastiveStepConfig):
        given = _contrastive_of(recipe)
    if "embedder" in method.Config.model_fields:
        given["embedder"] = recipe.embedder.model_dump()
    for key, value in values.items():
        section, dot, field = key.partition(".")
        if dot:
            given[section][field] = value
        else:
            given[key] = value
    try:
        return method.Config.model_validate(given)
    except ValidationError as error:
        raise ConfigError("; ".join(_fault(method.name, fault) for fault in error.errors())) from error


def _fault(name: str, fault: Any) -> str:
    """What pydantic says of a value, behind its key; of values that do not go together, behind the method's name."""
    key = ".".join([name, *map(str, fault["loc"])])
    said = fault["msg"].removeprefix("Value error, ")
    return f"{key} = {fault['input']!r}: {said}" if fault["loc"] else f"{key}: {said}"


def _keys(config: type[Section]) -> list[str]:
    """The keys of a section, those of the embedder within it with a dot."""
    of_embedder = [f"embedder.{key}" for key in EmbedderConfig.model_fields]
    return [key for name in config.model_fields for key in (of_embedder if name == "embedder" else [name])]


def _contrastive_of(recipe: RunConfig) -> dict[str, Any]:
    """The recipe's contrastive settings as those of a method that trains the embedder alone."""
    section, iterations = recipe.contrastive, recipe.iterations
    manner = {name: getattr(section, name) for name in ContrastiveStepConfig.model_fields}
    return {**manner, "iterations": iterations, "steps": section.steps + -(-section.history_steps // iterations)}
