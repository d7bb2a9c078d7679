"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Run = Annotated[Path, typer.Argument(metavar="RUN", help="The --output folder of `langptune train`.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe key, such as rlso.eta=0.5. May be repeated."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
User = Annotated[str | None, typer.Option(metavar="ID", help="A user of the data set, by the newest session.")]


def exactly_one(**options: object) -> None:
    """Refuse anything but one given option, in the command's own words."""
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        names = " and ".join(f"--{name}" for name in options)
        raise typer.BadParameter(f"Give exactly one of {names}; {len(given)} were given.")
