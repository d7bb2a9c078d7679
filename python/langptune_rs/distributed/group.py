"""Which process of a distributed run this is, as torchrun, SLURM or our own launcher put it, and how it ends.

Imports no torch.
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NoReturn

from langptune_rs.errors import ConfigError

FIRST_PORT, NUM_PORTS = 12000, 20000
"""Where the port of a SLURM job lies: below the range from which Linux hands out ports to others (32768 on)."""


def group_from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that torch.distributed reads: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT.

    Those of torchrun are taken as they are. A SLURM step of several tasks states rank and size in its own variables.
    Its first host is the master. The port follows from job and step, so that all tasks agree on it and two jobs on one
    host seldom meet. The result is empty for a group of one, such as a batch script outside of `srun`.

    Raises `ConfigError` when only some of the variables are set.
    """
    if "RANK" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        group = {name: _value(environment, name, "RANK") for name in names}
        return group if group["WORLD_SIZE"] != "1" else {}
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return {}

    def step(name: str) -> str:
        return _value(environment, name, "SLURM_STEP_NUM_TASKS")

    return {
        "RANK": step("SLURM_PROCID"),
        "WORLD_SIZE": step("SLURM_STEP_NUM_TASKS"),
        "LOCAL_RANK": step("SLURM_LOCALID"),
        "MASTER_ADDR": expand_hosts(step("SLURM_STEP_NODELIST"))[0],
        "MASTER_PORT": str(slurm_port(int(step("SLURM_JOB_ID")), int(environment.get("SLURM_STEP_ID", "0")))),
    }


def end_process(code: int) -> NoReturn:
    """End this process with an exit code. One of a group ends without shutting the interpreter down.

    A thread of gloo may hold the last tensor it sent a moment longer than the collective takes. If it lets go while
    the interpreter shuts down, the process aborts although its work is done (pytorch/pytorch pull request 179291):
    once in 300 runs of a program that only passes barriers. Leaving the group does not help: DeepSpeed holds on to it.
    """
    distributed = sys.modules.get("torch.distributed")
    if not (distributed and distributed.is_initialized()):
        sys.exit(code)
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)


def free_port() -> int:
    """A port of this machine that nobody listens on, at which the processes of a run can meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _value(environment: Mapping[str, str], name: str, beside: str) -> str:
    if name not in environment:
        raise ConfigError(
            f"{beside} is set, but {name} is not, so this process does not know its place among the others. "
            f"Start it with torchrun, srun or `langptune train --nproc N`, or unset {beside}."
        )
    return environment[name]


def slurm_port(job: int, step: int) -> int:
    """The port at which the tasks of a SLURM step meet."""
    return FIRST_PORT + (job * 61 + step) % NUM_PORTS


def expand_hosts(nodelist: str) -> list[str]:
    """The hosts of a SLURM node list in its order: `node[01-03,07],other5` is node01, node02, node03, node07, other5.

    Several brackets in one name give every combination; the last bracket varies fastest, as in `scontrol show
    hostnames`. Raises `ConfigError` for text that is no node list.
    """
    names = re.findall(r"(?:[^,\[\]\s]|\[[^\[\]]*\])+", nodelist)
    if not names or ",".join(names) != nodelist:
        raise ConfigError(f"{nodelist!r} is no SLURM node list, such as node[01-03,07],other5.")
    return [host for name in names for host in _expand(name, nodelist)]


def _expand(name: str, nodelist: str) -> list[str]:
    before, bracket, rest = name.partition("[")
    if not bracket:
        return [name]
    inside, _, after = rest.partition("]")
    hosts = []
    for part in inside.split(","):
        span = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if not span:
            raise ConfigError(f"{part!r} in the SLURM node list {nodelist!r} is neither a number nor a range.")
        first, last = span[1], span[2] or span[1]
        numbers = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
        hosts += [before + number + tail for number in numbers for tail in _expand(after, nodelist)]
    return hosts
