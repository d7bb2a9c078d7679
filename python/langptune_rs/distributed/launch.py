"""Several training processes, one for each rank: on this machine, or on those of a hostfile."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from langptune_rs.config import RunConfig, to_toml
from langptune_rs.distributed.group import free_port
from langptune_rs.distributed.hostfile import run_on_hosts
from langptune_rs.distributed.lifeline import INTERRUPTED, LOST_ANOTHER, TOLD_THE_USER
from langptune_rs.distributed.signals import forwarded_signals, handling
from langptune_rs.distributed.threads import thread_counts
from langptune_rs.errors import ConfigError

SECONDS_TO_FOLLOW = 15.0
"""How long the other processes may take to end by themselves after one has failed or been interrupted."""


def launch(
    module: Sequence[str], config: RunConfig, output: Path, *, nproc: int | None = None, hostfile: Path | None = None
) -> int:
    """Run a Python module in several processes and return their exit code: 0, or that of the one that failed first.

    `module` is its name and its arguments, to which `--config FILE` and `--output DIR` are added. The processes are
    `nproc` on this machine, or those that a `hostfile` names. Until they end, the recipe lies beside `output`, where
    all machines see it. Ctrl-C reaches every process exactly once, so that all of them stop after the same step.
    Raises `ConfigError` before anything is started when a machine or a GPU is missing.
    """
    output.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}.", dir=output.absolute().parent) as folder:
        recipe = Path(folder) / "config.toml"
        recipe.write_text(to_toml(config, only_given=True), encoding="utf-8")
        arguments = [*module, "--config", str(recipe), "--output", str(output.absolute())]
        if hostfile:
            return run_on_hosts(hostfile, arguments, free_port(), Path(folder) / "interrupt")
        num_processes = nproc or 1
        check_gpus(num_processes, torch.cuda.device_count())
        return run_processes([sys.executable, "-m", *arguments], num_processes)


def check_gpus(num_processes: int, num_gpus: int) -> None:
    """Raise `ConfigError` when there are GPUs, but fewer than processes."""
    if 0 < num_gpus < num_processes:
        raise ConfigError(
            f"--nproc {num_processes}, but this machine has {num_gpus} GPUs and each process needs its own. "
            f"Use --nproc {num_gpus}, or several machines with --hostfile."
        )


def run_processes(command: Sequence[str], num_processes: int) -> int:
    """Run `command` once for each rank, with the variables that torch.distributed reads, and return the exit code.

    Signals are passed on to all ranks. A second one of the same kind ends them within seconds, even if they hang.
    """
    with _workers(command, num_processes) as (workers, signals):
        return _wait(workers, signals)


@contextmanager
def _workers(command: Sequence[str], num_processes: int) -> Iterator[tuple[list[subprocess.Popen[bytes]], list[int]]]:
    """One process for each rank, and the signals passed on to them so far; none outlives the block.

    Each has its own process group, so that signals reach it only from here.
    """
    shared = {
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        **thread_counts(os.environ, max(1, (os.cpu_count() or 1) // num_processes)),
    }
    workers: list[subprocess.Popen[bytes]] = []
    signals: list[int] = []

    def forward(signum: int, frame: object) -> None:
        signals.append(signum)
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(signum)

    with handling(forwarded_signals(), forward):
        try:
            for rank in map(str, range(num_processes)):
                place = {"RANK": rank, "LOCAL_RANK": rank}
                workers.append(subprocess.Popen(command, env=os.environ | shared | place, start_new_session=True))
            yield workers, signals
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()


def _wait(workers: Sequence[subprocess.Popen[bytes]], signals: Sequence[int]) -> int:
    """The exit code of all, once they have ended or had `SECONDS_TO_FOLLOW` after the first failure."""
    deadline = float("inf")
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
        is_urgent = len(signals) > len(set(signals))
        if deadline == float("inf") and (is_urgent or any(worker.poll() for worker in workers)):
            deadline = time.monotonic() + SECONDS_TO_FOLLOW
    codes = [worker.poll() for worker in workers]
    failed = first_failure(codes)
    if failed is None:
        return INTERRUPTED if None in codes else 0
    rank, code = failed
    if message := _ending(rank, code, len(codes), workers[rank].pid):
        print(f"error: {message}", file=sys.stderr)
    return 128 - code if code < 0 else code


def first_failure(codes: Sequence[int | None]) -> tuple[int, int] | None:
    """The rank that failed first and its exit code, judged by all exit codes (None: still running); None if none did.

    A rank killed by a signal comes before one that raised, then one that told the user what to mend, and last one
    that stopped because another had failed.
    """

    def order(failure: tuple[int, int]) -> int:
        _, code = failure
        return 0 if code < 0 else {TOLD_THE_USER: 2, LOST_ANOTHER: 3}.get(code, 1)

    return min(((rank, code) for rank, code in enumerate(codes) if code), key=order, default=None)


def _ending(rank: int, code: int, num_processes: int, process: int) -> str | None:
    """How a rank ended, unless the user has been told already."""
    who = f"Rank {rank} of {num_processes} on {socket.gethostname()} (process {process})"
    if code < 0:
        full = ", as Linux does where memory is full" if -code == signal.SIGKILL else ""
        return f"{who} was ended by {signal.Signals(-code).name}{full}. Run again with --resume to go on."
    if code in (TOLD_THE_USER, INTERRUPTED):
        return None
    return f"{who} ended with exit code {code}; what it said is above. Run again with --resume to go on."
