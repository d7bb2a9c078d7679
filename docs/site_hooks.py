"""What the site is made of beside the pages in docs/: checked docstrings, and the pages that code describes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from typer.cli import get_docs_for_click

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs"), str(ROOT / "python"), str(ROOT / "cli")]

from public_names import undocumented  # noqa: E402

from langptune_cli.app import app  # noqa: E402
from langptune_rs.config import DEFAULT_RECIPE, RunConfig, list_recipes  # noqa: E402

log = logging.getLogger("mkdocs.hooks.langptune")
"""With --strict, a warning here ends the build."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and warn of every public name without a docstring."""
    for name in undocumented():
        log.warning("%s is public and has no docstring", name)
    for path, page in (("reference/recipe.md", recipe_page()), ("reference/commands.md", commands_page())):
        files.append(File.generated(config, path, content=page))
    return files


def recipe_page() -> str:
    """Every key of a recipe with its type, default and meaning, from the models of `langptune_rs.config`."""
    recipes = "\n".join(f"- `{name}`: {summary}" for name, summary in list_recipes().items())
    return (
        "# Keys of a recipe\n\n"
        "A recipe is a TOML file. `langptune config show RECIPE` prints all of its keys, and `--set KEY=VALUE` "
        "overrides one of them. An unknown key is refused, and the nearest one is suggested.\n\n"
        f"These recipes come with the package, `{DEFAULT_RECIPE}` being the default:\n\n{recipes}\n\n"
        + "\n".join(_sections(RunConfig, ""))
    )


def _sections(model: type[BaseModel], name: str) -> Iterator[str]:
    """The table of a section, and those of the sections within it."""
    sections = {key: _section(field.annotation) for key, field in model.model_fields.items()}
    yield f"## {f'[{name}]' if name else 'Before all sections'}\n\n{model.__doc__}\n"
    yield "| key | value | default | meaning |\n|---|---|---|---|"
    for key, field in model.model_fields.items():
        if not sections[key]:
            full = f"{name}.{key}" if name else key
            default = "unset" if field.default is None else f"`{_toml(field.default)}`"
            meaning = " ".join((field.description or "").split()).replace("|", "\\|")
            yield f"| `{full}` | {_kind(field.annotation)} | {default} | {meaning} |"
    yield ""
    for key, section in sections.items():
        if section:
            yield from _sections(section, key)


def _section(annotation: Any) -> type[BaseModel] | None:
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _kind(annotation: Any) -> str:
    """A type as a reader of TOML names it."""
    origin = get_origin(annotation)
    if origin is Literal:
        return " or ".join(f"`{_toml(value)}`" for value in get_args(annotation))
    if origin in (Union, UnionType):
        return " or ".join(_kind(part) for part in get_args(annotation) if part is not NoneType)
    if origin is dict:
        return "table"
    if origin is not None:  # Annotated
        return _kind(get_args(annotation)[0])
    return {bool: "true or false", int: "integer", float: "number", str: "text"}[annotation]


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f'"{value}"' if isinstance(value, str) else str(value)


def commands_page() -> str:
    """Every command with its arguments and options, from the Typer application."""
    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="langptune")
    page = get_docs_for_click(obj=command, ctx=context, name="langptune", title="Commands")
    return page.replace("\r", "")
