"""`langptune plan`: what a recipe needs, before anything is started."""

import json
from typing import Annotated

import typer

from langptune_cli.arguments import Json, Overrides
from langptune_rs.config import DEFAULT_RECIPE, load_config


def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a .toml file.")] = DEFAULT_RECIPE,
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(min=1, help="Processes, one for each GPU.")] = 1,
    gpu_memory: Annotated[float, typer.Option(min=0.1, metavar="GIB", help="Memory of each GPU.")] = 48.0,
    gpu_tflops: Annotated[float, typer.Option(min=0.1, help="Peak bfloat16 TFLOP/s of each GPU.")] = 155.0,
    gpu_fp32_tflops: Annotated[float, typer.Option(min=0.1, help="Peak float32 TFLOP/s of each GPU.")] = 38.7,
    gpu_bandwidth: Annotated[float, typer.Option(min=0.1, help="Peak memory GB/s of each GPU.")] = 768.0,
    as_json: Json = False,
) -> None:
    """Show the memory for each GPU by ZeRO stage, the time of a step, and which stage fits. Needs no GPU, no data."""
    config = load_config(recipe, overrides or ())
    from langptune_rs.models.shapes import embedder_shape, policy_shape
    from langptune_rs.training.planning.plan import make_plan

    policy, embedder = policy_shape(config.policy.model), embedder_shape(config.embedder.model)
    speeds = {"tflops": gpu_tflops, "fp32_tflops": gpu_fp32_tflops, "bandwidth": gpu_bandwidth}
    made = make_plan(config, policy, embedder, gpus, gpu_memory * 2**30, **speeds)
    typer.echo(json.dumps(made.as_json()) if as_json else "\n".join(made.lines()))
