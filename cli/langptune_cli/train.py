"""`langptune train`: train both models and report what it gained."""

from pathlib import Path
from typing import Annotated

import typer

from langptune_cli.arguments import Overrides
from langptune_rs.config import DEFAULT_RECIPE, load_config


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
    nproc: Annotated[int, typer.Option(min=1, help="Processes on this machine, one for each GPU.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in DIR where it stopped.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run that is in DIR.")] = False,
) -> None:
    """Train the policy and the embedder, then compare them with the untrained ones on the test split."""
    output = output or Path("runs") / Path(recipe or DEFAULT_RECIPE).stem
    started = output / "config.toml"
    if recipe is None and resume and started.is_file():
        recipe = str(started)
    config = load_config(recipe, overrides or ())
    if nproc == 1:
        from langptune_rs.experiments.run import run

        run(config, output, resume=resume, overwrite=overwrite)
    else:
        from langptune_rs.experiments.launch import launch

        raise typer.Exit(launch(config, output, nproc, resume=resume, overwrite=overwrite))
