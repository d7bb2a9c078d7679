"""`langptune gains`: what a run has gained over other methods, and runs of several seeds as one."""

import json
from pathlib import Path
from typing import Annotated

import typer

from langptune_cli.arguments import Json


def gains(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Folders of evaluated runs: one recipe, and a seed of its own for each."),
    ],
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    as_json: Json = False,
) -> None:
    """Print what was gained over the other methods, in Markdown; runs of several seeds are averaged by session."""
    from langptune_rs.experiments.report.tables import seeds_markdown
    from langptune_rs.experiments.seeds import compare_seeds

    compared = compare_seeds(runs, split)
    typer.echo(json.dumps(compared) if as_json else seeds_markdown(compared))
