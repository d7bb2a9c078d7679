"""`langptune train`: train both models and report what it gained."""

import os
from pathlib import Path
from typing import Annotated

import typer

from langptune_cli.arguments import Overrides
from langptune_rs.config import DEFAULT_RECIPE, load_config
from langptune_rs.distributed.group import group_from_environment


def train(
    recipe: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="RECIPE",
            help="A recipe's name, or a .toml file.",
            show_default=f"{DEFAULT_RECIPE}, or the run's own with --resume",
        ),
    ] = None,
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The folder of the run.", show_default="runs/RECIPE")
    ] = None,
    nproc: Annotated[
        int | None, typer.Option(min=1, help="Processes on this machine, one for each GPU.", show_default="1")
    ] = None,
    hostfile: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Machines to run on, one a line: HOST slots=N. Started over ssh and pdsh."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in DIR where it stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that is in DIR.")] = False,
) -> None:
    """Train the policy and the embedder, then compare them with the untrained ones on the test split.

    Inside torchrun or srun it is one of their processes.
    """
    if nproc and hostfile:
        raise typer.BadParameter(
            "--nproc counts the processes of this machine, --hostfile those of several machines: give only one."
        )
    group = group_from_environment(os.environ)
    if group and (nproc or hostfile):
        raise typer.BadParameter(
            f"{'--nproc' if nproc else '--hostfile'} starts processes, but this is already one of "
            f"{group['WORLD_SIZE']} that torchrun or srun started: leave it out, and tell them how many to start."
        )
    output = output or Path("runs") / Path(recipe or DEFAULT_RECIPE).stem
    started = output / "config.toml"
    if recipe is None and resume and started.is_file():
        recipe = str(started)
    config = load_config(recipe, overrides or ())
    if group:
        from langptune_rs.experiments.run import run_rank

        raise typer.Exit(run_rank(config, output, resume=resume, overwrite=overwrite))
    if hostfile or (nproc or 1) > 1:
        from langptune_rs.experiments.processes import run_in_processes

        code = run_in_processes(config, output, nproc=nproc, hostfile=hostfile, resume=resume, overwrite=overwrite)
        raise typer.Exit(code)
    from langptune_rs.experiments.run import run

    run(config, output, resume=resume, overwrite=overwrite)
