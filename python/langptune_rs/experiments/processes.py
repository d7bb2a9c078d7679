"""A whole run in several processes. Starting them imports no model library."""

from __future__ import annotations

from pathlib import Path

from langptune_rs.config import RunConfig
from langptune_rs.distributed.launch import launch

RUN = "langptune_rs.experiments.run"
"""The module that each process runs."""


def run_in_processes(
    config: RunConfig,
    output: Path,
    *,
    nproc: int | None = None,
    hostfile: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
) -> int:
    """Train, evaluate and report as `experiments.run.run` does, in several processes; returns their exit code.

    The processes are `nproc` on this machine, or those that a `hostfile` names. Raises `ConfigError` before anything
    is started when a machine or a GPU is missing.
    """
    options = ["--resume"] * resume + ["--overwrite"] * overwrite
    return launch([RUN, *options], config, output, nproc=nproc, hostfile=hostfile)
