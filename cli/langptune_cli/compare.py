"""`langptune compare`: every method on the same data, with tests."""

import json
from pathlib import Path
from typing import Annotated

import typer

from langptune_cli.arguments import Json, Overrides


def compare(
    data: Annotated[str, typer.Argument(metavar="DATA", help="A source name, a folder, or a prepared data set.")],
    output: Annotated[Path, typer.Option(help="Folder for the runs and the page; what is finished there is kept.")],
    methods: Annotated[str, typer.Option(metavar="NAMES", help="all, or names with commas between: EASE,MP.")] = "all",
    run: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="An evaluated run, whose method is compared too. May be repeated."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fit each method with the seeds from 0 to one less.")] = 3,
    config: Annotated[
        str | None, typer.Option(help="Recipe of the data's and the embedder's settings, by name or as a .toml file.")
    ] = None,
    set_: Overrides = None,
    split: Annotated[str, typer.Option(help="test or validation.")] = "test",
    guards: Annotated[
        bool,
        typer.Option(
            help="Measure what the profiles of the runs rest on and how long they take, which loads the runs' models."
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Fit every method, rank the same sessions by each, and test them against each other.

    A method's own settings are overridden as --set EASE.l2=100, and are then not chosen on validation.
    """
    from langptune_rs.experiments.compare.compare import compare as run_comparison
    from langptune_rs.experiments.compare.page import PAGES, markdown

    compared = run_comparison(
        data,
        output,
        methods=methods,
        runs=run or [],
        seeds=range(seeds),
        recipe=config,
        overrides=set_ or [],
        split=split,
        guards=guards,
    )
    if as_json:
        typer.echo(json.dumps(compared))
    else:
        typer.echo(markdown(compared))
        typer.echo(f"Page: {output / PAGES[0]}")
