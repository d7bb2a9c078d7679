"""A configuration as the text of a recipe file."""

from __future__ import annotations

import json

from langptune_rs.config.run import RunConfig


def to_toml(config: RunConfig) -> str:
    """The whole configuration as TOML; keys that are unset are left out."""
    values = config.model_dump(exclude_none=True)
    lines = [f"{name} = {_toml_value(value)}" for name, value in values.items() if not isinstance(value, dict)]
    for section, content in values.items():
        if isinstance(content, dict):
            lines += ["", f"[{section}]", *(f"{name} = {_toml_value(value)}" for name, value in content.items())]
    return "\n".join(lines) + "\n"


def _toml_value(value: str | bool | int | float) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
