"""`langptune evaluate`: score a finished run on a split."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from langptune_cli.arguments import Json, Run


def evaluate(
    run: Run,
    split: Annotated[str, typer.Option(help="test, validation or train.")] = "test",
    sessions: Annotated[
        int | None,
        typer.Option(min=1, help="How many sessions to draw from the split.", show_default="evaluation.max_sessions"),
    ] = None,
    initial_from: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN",
            help="An evaluated run of the same recipe and seed, whose untrained policy's profiles are taken.",
        ),
    ] = None,
    steerability: Annotated[
        bool,
        typer.Option(
            "--steerability",
            help="Measure what edits of profiles do to the ranking, with controls. The options below belong to it.",
        ),
    ] = False,
    with_: Annotated[
        list[Path] | None,
        typer.Option("--with", metavar="RUN", help="Another run on the same data to stand beside. May be repeated."),
    ] = None,
    users: Annotated[
        int | None, typer.Option(min=2, help="How many users, with a session each.", show_default="200")
    ] = None,
    tags: Annotated[
        int | None, typer.Option(min=1, help="How many tags of each of three strata.", show_default="4")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A tag to measure instead of drawn ones. May be repeated.")
    ] = None,
    min_items: Annotated[
        int | None, typer.Option(min=1, help="How many items must have a tag, and lack it.", show_default="25")
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="The encoder that judges profiles: wordllama, a folder or a hub id."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="What users and tags are drawn from.", show_default="0")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the trained models with the untrained ones and the baselines on every session of a split."""
    given: dict[str, Any] = {
        "num_users": users,
        "tags_per_stratum": tags,
        "tags": tuple(tag) if tag else None,
        "min_items": min_items,
        "judge": judge,
        "seed": seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if steerability:
        if sessions is not None:
            raise typer.BadParameter("--sessions belongs to an evaluation; with --steerability give --users.")
        _steerability(run, split, initial_from, with_ or [], given, as_json)
        return
    if with_ or given:
        raise typer.BadParameter("--with, --users, --tags, --tag, --min-items, --judge and --seed need --steerability.")
    from langptune_rs.experiments.evaluate import evaluate_run
    from langptune_rs.experiments.report.tables import print_results

    results = evaluate_run(run, split=split, max_sessions=sessions, initial_from=initial_from)
    if as_json:
        typer.echo(json.dumps(results))
    else:
        print_results(results)


def _steerability(
    run: Path, split: str, initial_from: Path | None, others: list[Path], given: dict[str, Any], as_json: bool
) -> None:
    if initial_from is not None:
        raise typer.BadParameter(
            "--initial-from belongs to an evaluation, which comes first: leave out --steerability."
        )
    from langptune_rs.experiments.steerability.page import markdown
    from langptune_rs.experiments.steerability.protocol import Protocol
    from langptune_rs.experiments.steerability.steerability import measure_steerability

    results = measure_steerability(run, split=split, others=others, protocol=Protocol(**given))
    typer.echo(json.dumps(results) if as_json else markdown(results))
