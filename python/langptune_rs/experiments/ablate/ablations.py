"""The ablations: which key each of them changes, by default to what, and what its values can be."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from langptune_rs.config import RunConfig
from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.errors import ConfigError, InputError, nearest

Value = int | float | str


@dataclass(frozen=True)
class Ablation:
    """One key of a recipe, and the values that it is given."""

    name: str
    key: str
    title: str
    axis: str
    """What the values are, for the axis of a figure."""
    kind: Literal["whole", "percent", "text"]
    """A whole number; a share that is written in percent; or a text."""
    defaults: tuple[Value, ...] = ()
    """Values where the user names none. Without them: the recipe's own, and three times half of the one before."""
    lowest: int = 1
    choices: tuple[str, ...] = ()
    """All texts that there are. Without them a text is whatever the recipe takes."""
    is_log: bool = False
    """Whether figures have the values on a logarithmic axis."""
    falls: bool = False
    """Whether the values stand from the highest to the lowest, as in the paper."""
    with_all: Mapping[str, object] = field(default_factory=dict)
    """Other keys that every value is trained with, unless the user sets them."""
    note: str = ""
    """What a reader of the numbers must know, in sentences."""

    @property
    def is_of_policy(self) -> bool:
        """Whether the key changes what the policy learns from and nothing else."""
        return self.key.startswith("rlso.") or self.key == "data.num_targets"


_CHOICES = {key: get_args(RlsoConfig.model_fields[key].annotation) for key in ("objective", "standardize")}
_ALL = (
    Ablation(
        name="profile-length",
        key="profile.max_tokens",
        title="Profile length",
        axis="tokens of a profile, at most",
        kind="whole",
        is_log=True,
        falls=True,
        note="A profile that does not end within the limit is cut there. Table 3 of the paper has 512 to 64 tokens.",
    ),
    Ablation(
        name="train-ratio",
        key="data.train_share",
        title="Training sessions",
        axis="share of the train sessions",
        kind="percent",
        defaults=(100, 10, 1),
        is_log=True,
        falls=True,
        note="The sessions of a share are drawn with the run's seed, and training knows no others; the steps are as "
        "many for every share. Figures 3 and 4 of the paper go from 100% down to 0.1%.",
    ),
    Ablation(
        name="iterations",
        key="iterations",
        title="Iterations",
        axis="iterations",
        kind="whole",
        defaults=(1, 2, 3),
        note="Each number of iterations is a run of its own, whose learning rates fall to 0 at its end: it is what a "
        "recipe with that number gives, not a longer run that was stopped.",
    ),
    Ablation(
        name="num-profiles",
        key="rlso.num_profiles",
        title="Profiles a session",
        axis="profiles of a session in a rollout",
        kind="whole",
        defaults=(2, 4, 6, 8),
        lowest=2,
    ),
    Ablation(
        name="epochs",
        key="rlso.epochs",
        title="Steps over a rollout",
        axis="steps over each rollout",
        kind="whole",
        defaults=(1, 2, 4),
    ),
    Ablation(
        name="num-targets",
        key="data.num_targets",
        title="Targets of a reward",
        axis="targets of a reward, at most",
        kind="whole",
        defaults=(1, 3, 6),
    ),
    Ablation(
        name="reward",
        key="rlso.reward",
        title="Reward",
        axis="reward",
        kind="text",
        defaults=("ndcg", "log_rank", "log_softmax", "ndcg + 0.05 log_softmax"),
        with_all={"rlso.overlong_penalty": 0},
        note="A profile without an end loses nothing unless --set rlso.overlong_penalty says so, since no one penalty "
        "weighs the same in rewards of different units.",
    ),
    Ablation(
        name="objective",
        key="rlso.objective",
        title="Objective",
        axis="objective",
        kind="text",
        defaults=_CHOICES["objective"],
        choices=_CHOICES["objective"],
    ),
    Ablation(
        name="standardize",
        key="rlso.standardize",
        title="Standardised reward",
        axis="what rewards are standardised over",
        kind="text",
        defaults=_CHOICES["standardize"],
        choices=_CHOICES["standardize"],
    ),
)
ABLATIONS = {ablation.name: ablation for ablation in _ALL}
EQUAL_PROFILES = "Every value is trained from the same number of written profiles, or a few fewer: its steps follow."


def find_ablation(name: str) -> Ablation:
    """The ablation of that name. Raises `InputError` with all there are."""
    if name not in ABLATIONS:
        raise InputError(
            f"there is no ablation {name!r}.{nearest(name, ABLATIONS)} Ablations are {', '.join(ABLATIONS)}"
        )
    return ABLATIONS[name]


@dataclass(frozen=True)
class Limits:
    """The lowest and the highest number that an ablation can have for a recipe and its data, and what sets them."""

    low: float
    high: float = math.inf
    reason: str = ""

    def hold(self, value: Value) -> bool:
        """Whether a value is a text, or a number within the limits."""
        return isinstance(value, str) or self.low <= value <= self.high


def limits_of(ablation: Ablation, config: RunConfig, num_train: int) -> Limits:
    """The limits of an ablation of a recipe with `num_train` train sessions."""
    if ablation.kind == "percent":
        batch = max(
            config.contrastive.batch_size if config.trains_embedder else 1,
            config.rlso.batch_size if config.trains_policy else 1,
        )
        low = math.ceil(10_000 * batch / num_train) / 100
        return Limits(low, 100, f": the largest batch has {batch:,} of the {num_train:,} train sessions")
    if ablation.key == "rlso.num_profiles":
        most = profiles_of(config) // config.rlso.batch_size
        return Limits(
            ablation.lowest,
            most,
            f": with more, the {profiles_of(config):,} profiles of an iteration are no whole rollout of "
            f"{config.rlso.batch_size} sessions",
        )
    return Limits(ablation.lowest)


def values_of(ablation: Ablation, text: str | None, config: RunConfig, limits: Limits) -> tuple[list[Value], Value]:
    """The values of an ablation in the order of its rows, and which of them is the recipe's own.

    `text` has values with commas between; None stands for the defaults that are within the limits. The recipe's own
    value is always one of them. Raises `InputError` for a value that cannot be, with the range, for one twice, and
    where there is none beside the recipe's own.
    """
    own = own_value(ablation, config)
    if text is None:
        given = [value for value in ablation.defaults or _halves(own) if limits.hold(value)]
    else:
        given = [_parsed(ablation, part, limits) for part in text.split(",")]
    if twice := next((value for place, value in enumerate(given) if value in given[:place]), None):
        raise InputError(f"--values has {label(ablation, twice)} twice. Give each value once.")
    values = given if own in given else [own, *given]
    if len(values) == 1:
        raise InputError(
            f"{ablation.name} has no value but the recipe's own, {label(ablation, own)}. Give others with --values; "
            f"{_range(ablation, limits)}."
        )
    if ablation.kind != "text":
        values = sorted(values, key=float, reverse=ablation.falls)
    return values, own


def beyond_limits(ablation: Ablation, config: RunConfig, limits: Limits) -> str:
    """Which default values cannot be and why, as a sentence; nothing where all can be."""
    own = own_value(ablation, config)
    usual = ablation.defaults or _halves(own)
    beyond = [label(ablation, value) for value in dict.fromkeys(usual) if not limits.hold(value) and value != own]
    if not beyond:
        return ""
    return f"{', '.join(beyond)} {'is' if len(beyond) == 1 else 'are'} left out, since {_range(ablation, limits)}."


def _halves(own: Value) -> list[Value]:
    """512 -> 512, 256, 128, 64, as in table 3."""
    assert isinstance(own, int), "only whole numbers have no defaults of their own"
    return [own // 2**times for times in range(4)]


def own_value(ablation: Ablation, config: RunConfig) -> Value:
    """The recipe's own value, as `--values` would have it."""
    found = config.value_of(ablation.key) if "." in ablation.key else getattr(config, ablation.key)
    assert isinstance(found, int | float | str)
    return round(100 * found, 10) if ablation.kind == "percent" and not isinstance(found, str) else found


def label(ablation: Ablation, value: Value) -> str:
    """A value for a reader: 10 -> "10%" where it is a share."""
    return f"{value:g}%" if ablation.kind == "percent" else str(value)


def overrides_of(ablation: Ablation, value: Value, config: RunConfig) -> list[str]:
    """What a run of a value has beside the recipe, as `key=value`.

    A key of `rlso` leaves the number of written profiles as it is: the steps follow from it.
    """
    given = float(value) / 100 if ablation.kind == "percent" else value
    overrides = [f"{ablation.key}={json.dumps(given)}"]
    if ablation.key.startswith("rlso.") and value != own_value(ablation, config):
        changed = config.with_values({ablation.key: value})
        rollouts = profiles_of(config) // (changed.rlso.batch_size * changed.rlso.num_profiles)
        overrides.append(f"rlso.steps={rollouts * changed.rlso.epochs}")
    return overrides


def profiles_of(config: RunConfig) -> int:
    """How many profiles are written for the policy's updates in each iteration."""
    return config.rlso.steps // config.rlso.epochs * config.rlso.batch_size * config.rlso.num_profiles


def check_suits(ablation: Ablation, config: RunConfig, *, policy_only: bool) -> None:
    """Raise `ConfigError` where a recipe's method does not train what an ablation is of, and `InputError` for a policy
    alone where the ablation is not of it.
    """
    if ablation.is_of_policy and not config.trains_policy:
        raise ConfigError(
            f"{ablation.name} is about the policy's training, but method = {config.method!r} trains no policy. Give "
            '--set method=LangPTune or "LangPTune-RLSO".'
        )
    if policy_only and not ablation.is_of_policy:
        of_policy = ", ".join(name for name, other in ABLATIONS.items() if other.is_of_policy)
        raise InputError(
            f"--policy-only trains every policy under one embedder, but {ablation.name} changes what the embedder "
            f"learns too. Leave it out; it goes with {of_policy}."
        )


def _parsed(ablation: Ablation, text: str, limits: Limits) -> Value:
    """The value that a text means. Raises `InputError` with what can be."""
    text = " ".join(text.split())
    refusal = InputError(f"{ablation.name} cannot be {text!r}: {_range(ablation, limits)}.")
    if ablation.kind == "text":
        if not text or (ablation.choices and text not in ablation.choices):
            raise refusal
        return text
    try:
        number = float(text.removesuffix("%")) if ablation.kind == "percent" else int(text)
    except ValueError:
        raise refusal from None
    if not limits.hold(number):
        raise refusal
    return number


def _range(ablation: Ablation, limits: Limits) -> str:
    """What the values can be, as a part of a sentence."""
    if ablation.choices:
        return f"it is one of {', '.join(ablation.choices)}"
    if ablation.kind == "text":
        return f"it is whatever {ablation.key} can be, without a comma"
    what = "a percentage" if ablation.kind == "percent" else "a whole number"
    to = f" to {limits.high:g}" if limits.high < math.inf else " on"
    return f"it is {what} from {limits.low:g}{to}{limits.reason}"


def folder_name(value: Value) -> str:
    """The name of a value's folder: "ndcg + 0.05 log_softmax" -> "ndcg-plus-0.05-log_softmax"."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    for sign, word in (("+", " plus "), (" -", " minus "), ("*", " times ")):
        text = text.replace(sign, word)
    return "-".join(text.replace("/", " ").split())


def folders_of(values: Sequence[Value]) -> dict[Value, str]:
    """The folder of each value. Raises `InputError` for two values that are written alike."""
    names = {value: folder_name(value) for value in values}
    for value, name in names.items():
        other = next((o for o in values if o != value and names[o] == name), None)
        if other is not None:
            raise InputError(f"{other!r} and {value!r} are one value in two spellings. Give it once.")
    return names
