"""Recipes: TOML in, a validated `RunConfig` out, with `a.b=c` overrides."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from langptune_rs.config.run import RunConfig
from langptune_rs.config.toml import is_beyond_toml
from langptune_rs.errors import ConfigError

DEFAULT_RECIPE = "quickstart"


def list_recipes() -> dict[str, str]:
    """Name and first comment line of every recipe that comes with the package."""
    files = sorted((f for f in _recipes().iterdir() if f.name.endswith(".toml")), key=lambda f: f.name)
    return {f.name.removesuffix(".toml"): f.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for f in files}


def load_config(recipe: str | Path | None = None, overrides: Sequence[str] = ()) -> RunConfig:
    """The configuration of a recipe, given by name or as a .toml file, with `a.b=c` overrides applied in order.

    c is a TOML value, `none` to leave the key unset, or bare text, whose leading spaces are dropped.
    Raises `ConfigError` naming the key and what is allowed, and for an unknown key the nearest one.
    """
    values = _read_recipe(recipe or DEFAULT_RECIPE)
    for override in overrides:
        _apply(values, override)
    _check_keys(values)
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(e) for e in error.errors())) from error


def _read_recipe(recipe: str | Path) -> dict[str, Any]:
    path = Path(recipe)
    file: Traversable
    if path.suffix == ".toml":
        if not path.is_file():
            raise ConfigError(f"There is no recipe file {path}. `langptune config list` shows the recipes by name.")
        file = path
    else:
        names = list_recipes()
        if str(recipe) not in names:
            raise ConfigError(
                f"There is no recipe {str(recipe)!r}. Choose one of {', '.join(names)}, or give a .toml file."
            )
        file = _recipes() / f"{recipe}.toml"
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"The recipe {recipe} is not valid TOML: {error or type(error).__name__}.") from error


def _recipes() -> Traversable:
    return resources.files("langptune_rs.config") / "recipes"


def _apply(values: dict[str, Any], override: str) -> None:
    """Set one `a.b=c` in the nested `values`."""
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigError(f"The override {override!r} is not of the form key=value, such as rlso.learning_rate=1e-6.")
    for part in parts[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise ConfigError(f"The override {override!r} goes below {part!r}, which is a value, not a section.")
    values[parts[-1]] = override_value(text.lstrip())


def override_value(text: str) -> Any:
    """A TOML value; text that is not one is taken as it stands, with a space at its end, as a prompt may have."""
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
    except tomllib.TOMLDecodeError:
        return text
    return parsed["value"] if len(parsed) == 1 else text


def _section(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    """The model of the section `name` within `model`, or None if `name` is a plain key."""
    annotation = model.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _leaves(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[str]:
    """Dotted names of every key of a configuration."""
    for name in model.model_fields:
        section = _section(model, name)
        yield from _leaves(section, f"{prefix}{name}.") if section else (prefix + name,)


def _check_keys(values: Mapping[str, Any], model: type[BaseModel] = RunConfig, prefix: str = "") -> None:
    """Raise `ConfigError` for a key that no configuration has, for a value in the place of a section, and for a number
    that no TOML file can hold."""
    for name, value in values.items():
        key = prefix + name
        if name not in model.model_fields:
            while isinstance(value, Mapping) and value:
                name, value = next(iter(value.items()))
                key = f"{key}.{name}"
            raise ConfigError(f"There is no key {key!r} in a recipe.{_hint(key)}")
        if section := _section(model, name):
            if not isinstance(value, Mapping):
                example = next(_leaves(section, f"{key}."))
                raise ConfigError(f"{key!r} is a section, not a value. Set one of its keys, such as {example}.")
            _check_keys(value, section, f"{key}.")
        elif is_beyond_toml(value):
            raise ConfigError(f"{key!r} has a whole number of more than 64 bits. Write a smaller one.")


def _hint(key: str) -> str:
    """A hint at the known key nearest to `key`: given by its initials, in another section, or misspelled."""
    known = list(_leaves())
    section, _, last = key.rpartition(".")
    abbreviated = [k for k in known if _initials(k) == (section, last)]
    elsewhere = [k for k in known if k.rpartition(".")[2] == last]
    near = abbreviated or _nearest(key, elsewhere, cutoff=0.0) or _nearest(key, known, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else " `langptune config show` lists all keys."


def _nearest(key: str, known: Sequence[str], cutoff: float) -> list[str]:
    return difflib.get_close_matches(key, known, n=1, cutoff=cutoff)


def _initials(key: str) -> tuple[str, str]:
    """`rlso.learning_rate` -> ("rlso", "lr")."""
    section, _, last = key.rpartition(".")
    return section, "".join(word[0] for word in last.split("_"))


def _explain(error: Mapping[str, Any]) -> str:
    """The key, what was given, why it is refused, and what the key means unless a check of ours has said more."""
    key = ".".join(str(part) for part in error["loc"])
    message: str = error["msg"].removeprefix("Value error, ")
    if not key:
        return message
    refused = f"{key} = {error['input']!r}: {message[0].lower()}{message[1:]}"
    about = None if error["type"] == "value_error" else _description(key)
    return f"{refused}. It means: {about}" if about else refused


def _description(key: str) -> str | None:
    """The docstring of a key in one line, without the dot at its end."""
    model: type[BaseModel] | None = RunConfig
    *sections, name = key.split(".")
    for section in sections:
        model = _section(model, section) if model and section in model.model_fields else None
    field = model.model_fields.get(name) if model else None
    return " ".join(field.description.split()).removesuffix(".") if field and field.description else None
