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
    gpu_bandwidth: Annotated[float, typer.Option(min=0.1, help="Peak memory GB/s of each GPU.")] = 768.0,
    as_json: Json = False,
) -> None:
    """Show the memory for each GPU by ZeRO stage, the time of a step, and which stage fits. Needs no GPU, no data."""
    config = load_config(recipe, overrides or ())
    from langptune_rs.models.shapes import embedder_shape, policy_shape
    from langptune_rs.training.plan import as_json as planned

    policy, embedder = policy_shape(config.policy.model), embedder_shape(config.embedder.model)
    speed = {"tflops": gpu_tflops, "bandwidth": gpu_bandwidth}
    result = planned(config, policy, embedder, gpus, gpu_memory * 2**30, **speed)
    if as_json:
        typer.echo(json.dumps(result))
        return
    parts = ("weights", "gradients", "optimizer", "activations", "kv_cache", "total")
    typer.echo(f"GiB on each of {gpus} GPUs of {gpu_memory:g}, of which {result['usable_share']:.0%} are planned with")
    typer.echo(f"{'ZeRO, offload':<16}{'phase':<13}" + "".join(f"{part:>12}" for part in parts) + "  fits")
    for option in result["options"]:
        name = f"{option['zero_stage']}" + (f", {option['offload']}" if option["offload"] != "none" else "")
        for phase in option["phases"]:
            sizes = "".join(f"{phase[part] / 2**30:>12.2f}" for part in parts)
            fits = phase["total"] <= result["usable_share"] * result["gpu_memory"]
            typer.echo(f"{name:<16}{phase['phase']:<13}{sizes}  {'yes' if fits else 'no'}")
    for step in result["steps"]:
        typer.echo(
            f"A {step['phase']} step writes {step['tokens_written']:,} tokens, trains on {step['tokens_trained']:,}: "
            f"about {step['seconds']:.1f} s at {result['share_of_peak']:.0%} of {gpu_tflops:g} TFLOP/s and of "
            f"{gpu_bandwidth:g} GB/s"
        )
    typer.echo(result["advice"])
