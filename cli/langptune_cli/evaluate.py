"""`langptune evaluate`: score a finished run on a split."""

import json
from pathlib import Path
from typing import Annotated

import typer

from langptune_cli.arguments import Json, Run


def evaluate(
    run: Run,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    initial_from: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="An evaluated run of the same recipe and seed, whose untrained policy's profiles are taken.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the trained models with the untrained ones and the baselines on every session of a split."""
    from langptune_rs.experiments.evaluate import evaluate_run
    from langptune_rs.experiments.report.tables import print_results

    results = evaluate_run(run, split=split, initial_from=initial_from)
    if as_json:
        typer.echo(json.dumps(results))
    else:
        print_results(results)
