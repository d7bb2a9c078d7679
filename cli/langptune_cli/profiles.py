"""`langptune profiles`: what the trained policy writes about every user of the data set."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from langptune_cli.arguments import Run


def profiles(
    run: Run,
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The parquet file to write.")],
    split: Annotated[
        Literal["train", "validation", "test", "all"], typer.Option(help="Whose sessions to profile.")
    ] = "all",
    samples: Annotated[int, typer.Option(min=0, help="Sampled profiles for each session, beside the greedy one.")] = 0,
    nproc: Annotated[int, typer.Option(min=1, help="Processes on this machine, one for each GPU.")] = 1,
) -> None:
    """Write the profiles of all sessions; the same command again goes on where it was stopped."""
    from langptune_rs.distributed.lifeline import INTERRUPTED
    from langptune_rs.experiments.profiles import profile_sessions

    code = profile_sessions(run, out, split=split, samples=samples, num_processes=nproc)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code:
        raise typer.Exit(code)
    typer.echo(f"Profiles written to {out}")
