"""The language model that writes profiles."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt, field_validator

from langptune_rs.config.section import Section

OWN_ARGUMENTS = ("messages", "add_generation_prompt", "tools", "documents", "strftime_now", "raise_exception")
"""What every chat template is given, and no recipe can set."""


class PolicyConfig(Section):
    """The language model that writes profiles, and which of its weights are trained."""

    model: str = "smollm2-135m-instruct"
    """An embedded model's name, a local folder in transformers' format, or a hub id."""
    train: Literal["lora", "last-layers"] = "last-layers"
    last_layers: PositiveInt = 4
    """Decoder layers that train, counted from the output, with `train = "last-layers"`."""
    train_final_norm: bool = False
    train_lm_head: bool = False
    """Train the output matrix too. Only for models whose output is not tied to the input embeddings."""
    lora_rank: PositiveInt = 16
    lora_alpha: PositiveFloat = 32
    template_arguments: dict[str, bool | int | float | str] = {}  # noqa: RUF012  # every configuration gets its own
    """Arguments of the model's own chat template, such as `{enable_thinking = true}`."""
    thinking: Literal["off", "template"] = "off"
    """`off`: a model that can think before it answers is told not to, unless `template_arguments` say otherwise;
    `template`: that is left to the model's chat template, as in runs of earlier versions. Thoughts are no part of a
    profile, but count among its tokens."""
    date: str = "2024-07-26"
    """The day, YYYY-MM-DD, that a chat template tells the model where it tells the date. It is fixed, so that a prompt
    is the same on every day."""

    @field_validator("template_arguments", mode="before")
    @classmethod
    def _check_arguments(cls, arguments: object) -> object:
        if not isinstance(arguments, Mapping):
            raise ValueError("this is a table of names and values, such as {enable_thinking = true}")
        for name, value in arguments.items():
            _check_argument(name, value)
        return dict(arguments)

    @field_validator("date", mode="before")
    @classmethod
    def _check_date(cls, date: object) -> object:
        """TOML writes a date with quotation marks and without."""
        try:
            if type(date) is datetime.date:
                return date.isoformat()
            return datetime.date.fromisoformat(date).isoformat() if isinstance(date, str) else date
        except ValueError as error:
            raise ValueError('write a day as YYYY-MM-DD, such as "2024-07-26"') from error


def _check_argument(name: object, value: Any) -> None:
    """Raise `ValueError` for an argument that no template can be given."""
    if name in OWN_ARGUMENTS:
        raise ValueError(f"{name!r} is what every chat template is given; leave it out")
    if isinstance(value, str) and value.lower() in ("true", "false"):
        raise ValueError(f"{name} = {value!r} is a text, which counts as true; write {value.lower()}")
    if not isinstance(value, bool | int | float | str) or (isinstance(value, float) and not math.isfinite(value)):
        raise ValueError(f"{name} = {value!r}: an argument is true, false, a number or a text")
