"""A configuration as the text of a recipe file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from langptune_rs.config.run import RunConfig
from langptune_rs.config.section import UNSET, Section


def to_toml(config: RunConfig, *, only_given: bool = False) -> str:
    """The whole configuration as TOML, which reads back equal.

    A key that is unset is left out, or "none" where its default is a value. With `only_given` the text has the keys
    that were given a value, "none" included, and no others: it reads back equal, and what was not given is still not.
    """
    lines = _lines(config, only_given)
    for name in type(config).model_fields:
        section = getattr(config, name)
        if isinstance(section, Section):
            lines += ["", f"[{name}]", *_lines(section, only_given)]
    return "\n".join(lines) + "\n"


def is_beyond_toml(value: object) -> bool:
    """Whether a value is, or holds, a whole number of more than TOML's 64 bits, which Python reads."""
    if isinstance(value, Mapping):
        return any(map(is_beyond_toml, value.values()))
    if isinstance(value, list):
        return any(map(is_beyond_toml, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _lines(section: Section, only_given: bool) -> list[str]:
    """The keys of a section that have a line, without the sections inside it."""
    values = {name: (getattr(section, name), field.default) for name, field in type(section).model_fields.items()}
    return [
        f"{name} = {_toml_value(UNSET if value is None else value)}"
        for name, (value, default) in values.items()
        if not isinstance(value, Section)
        and (name in section.model_fields_set if only_given else value is not None or default is not None)
    ]


def _toml_value(value: str | bool | int | float | Mapping[str, Any]) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_value(name)} = {_toml_value(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
