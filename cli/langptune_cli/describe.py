"""`langptune describe`: items described from their reviews, and what that is worth."""

import json
from pathlib import Path
from typing import Annotated

import typer

from langptune_cli.arguments import Json, Overrides


def describe(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="A source name, a folder, or a prepared data set, with reviews.")
    ],
    output: Annotated[Path, typer.Option(help="Folder for runs and results; what is finished there is kept.")],
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="A trained run on the same data, whose profiles stand for the users and whose embedder ranks.",
            show_default="the titles of histories, and the recipe's embedder",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train with the seeds from 0 to one less.")] = 1,
    recipe: Annotated[
        str, typer.Option("--config", metavar="RECIPE", help="A recipe that writes descriptions, or a .toml file.")
    ] = "describe",
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="validation or test: whose sessions rank the catalogs.")] = "validation",
    item: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ITEM",
            help="The id or title of an item to show before and after. May be repeated.",
            show_default="3",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train the policy to describe items from their reviews, and rank catalogs of descriptions against the metadata.

    The same command again goes on where it was stopped.
    """
    from langptune_rs.describing.describe import DESCRIPTIONS_FILE
    from langptune_rs.describing.describe import describe as run_description
    from langptune_rs.describing.tables import markdown

    results = run_description(
        data,
        output,
        recipe=recipe,
        overrides=overrides or (),
        run=run,
        seeds=range(seeds),
        split=split,
        items=item or (),
    )
    if as_json:
        typer.echo(json.dumps(results))
    else:
        typer.echo(markdown(results))
        typer.echo(f"Descriptions: {output / DESCRIPTIONS_FILE}")
