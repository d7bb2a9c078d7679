"""`langptune ablate`: what one key of a recipe does."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from langptune_cli.arguments import Json, Overrides


def ablate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="WHAT",
            help="profile-length, train-ratio, iterations, num-profiles, epochs, num-targets, reward, objective or "
            "standardize.",
        ),
    ],
    output: Annotated[Path, typer.Option(help="Folder for the runs and the page; what is finished there is kept.")],
    values: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C", help="Values instead of the usual ones, such as 64,16. The recipe's own is always there."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Train each value with the seeds from 0 to one less.")] = 1,
    config: Annotated[
        str | None, typer.Option(metavar="RECIPE", help="A recipe's name, or a .toml file.", show_default="quickstart")
    ] = None,
    set_: Overrides = None,
    split: Annotated[Literal["validation", "test"], typer.Option(help="Whose sessions are ranked.")] = "validation",
    policy_only: Annotated[
        bool,
        typer.Option("--policy-only", help="Train one embedder first, and under it a policy for each value and seed."),
    ] = False,
    guards: Annotated[
        bool, typer.Option(help="Measure what the profiles rest on, which loads the models of each run again.")
    ] = True,
    beside: Annotated[
        str | None,
        typer.Option(metavar="METHOD,METHOD", help="With train-ratio: methods fitted to the same shares: MCL,EMB-CL."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a run for each value of one key and each seed, and compare them with the recipe's own value.

    Nothing of the test split is read unless --split says so.
    """
    from langptune_rs.experiments.ablate.ablate import ablate as run
    from langptune_rs.experiments.ablate.page import PAGES, markdown

    ablation = run(
        what,
        output,
        recipe=config,
        overrides=set_ or [],
        values=values,
        seeds=range(seeds),
        split=split,
        policy_only=policy_only,
        guards=guards,
        methods=beside,
    )
    if as_json:
        typer.echo(json.dumps(ablation))
    else:
        typer.echo(markdown(ablation))
        typer.echo(f"Page: {output / PAGES[0]}")
