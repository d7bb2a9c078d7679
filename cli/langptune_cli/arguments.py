"""Arguments and options that several commands share."""

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, TypeVar, get_args, get_origin

import typer

from langptune_rs.config.section import Section

Command = TypeVar("Command", bound=Callable[..., None])

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The --output folder of `langptune train`.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, such as rlso.eta=0.5. May be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
User = Annotated[str | None, typer.Option(metavar="ID", help="A user of the data set, by the newest session.")]

ProfileText = Annotated[
    str | None, typer.Option("--profile", metavar="TEXT", help="A profile, as the policy or you wrote it.")
]


def exactly_one(**options: object) -> None:
    """Refuse anything but one given option, in the command's own words."""
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        names = " and ".join(f"--{name}" for name in options)
        raise typer.BadParameter(f"Give exactly one of {names}; {len(given)} were given.")


def options_from(
    section: type[Section], *, leave_out: Collection[str] = (), **metavars: str
) -> Callable[[Command], Command]:
    """Give a command an option for every key of `section`, with the key's default, choices, limits and documentation.

    The command receives them as its keyword arguments `**settings`. For a number that may be unset but is not by
    default, 0 unsets it. `metavars` are what the help shows for values, by key.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        own = [parameter for parameter in signature.parameters.values() if parameter.kind is not parameter.VAR_KEYWORD]
        keys = [
            _option(key, field, metavars.get(key))
            for key, field in section.model_fields.items()
            if key not in leave_out
        ]
        command.__signature__ = signature.replace(parameters=[*own, *keys])  # type: ignore[attr-defined]
        return command

    return decorate


def _option(key: str, field: Any, metavar: str | None) -> inspect.Parameter:
    """The option of a key, a field of a pydantic model, as a parameter of the command's function."""
    kind, limits = field.annotation, field.metadata
    is_optional = NoneType in get_args(kind)
    if is_optional:
        kind = get_args(kind)[0]
    if get_origin(kind) is Annotated:
        kind, *limits = get_args(kind)
    low = next((limit.gt + 1 if hasattr(limit, "gt") else limit.ge for limit in limits), None)
    text = " ".join((field.description or "").replace("`", "").split())
    if is_optional and isinstance(field.default, int):
        option = typer.Option(min=0, callback=lambda value: value or None, help=f"{text} Give 0 for none.")
    else:
        option = typer.Option(min=low, metavar=metavar, help=text)
    annotation: Any = Annotated[kind | None if field.default is None else kind, option]
    return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=annotation)
