"""Several training processes on this machine, one for each rank."""

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

from langptune_rs.config import RunConfig, to_toml

SECONDS_TO_FOLLOW = 15.0
"""How long the other processes may take to end by themselves after one has failed or was interrupted."""


def launch(config: RunConfig, output: Path, num_processes: int, *, resume: bool, overwrite: bool) -> int:
    """Run `experiments.run` in `num_processes` processes and return their exit code: 0, or the first other.

    Ctrl-C reaches every process exactly once, so that all of them stop after the same step and save. For several
    machines start the same module with torchrun.
    """
    with tempfile.TemporaryDirectory(prefix="langptune-") as folder:
        recipe = Path(folder) / "config.toml"
        recipe.write_text(to_toml(config), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "langptune_rs.experiments.run",
            "--config",
            str(recipe),
            "--output",
            str(output),
        ]
        command += ["--resume"] * resume + ["--overwrite"] * overwrite
        return run_processes(command, num_processes)


def run_processes(command: Sequence[str], num_processes: int) -> int:
    """Run `command` once for each rank, with the variables that torch.distributed reads, and return the exit code."""
    with _workers(command, num_processes) as workers:
        return _wait(workers)


@contextmanager
def _workers(command: Sequence[str], num_processes: int) -> Iterator[list[subprocess.Popen]]:
    """One process for each rank, none of them left behind. Each has its own process group: signals come from here."""
    shared = {
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // num_processes))),
    }
    workers: list[subprocess.Popen] = []

    def forward(signum: int, frame: object) -> None:
        for worker in workers:
            if worker.poll() is None:
                worker.send_signal(signum)

    before = {signum: signal.signal(signum, forward) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        for rank in map(str, range(num_processes)):
            place = {"RANK": rank, "LOCAL_RANK": rank}
            workers.append(subprocess.Popen(command, env=os.environ | shared | place, start_new_session=True))
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
        for signum, handler in before.items():
            signal.signal(signum, handler)


def _wait(workers: Sequence[subprocess.Popen]) -> int:
    """Wait until all have ended, or for a while after the first has failed: the others may wait for it in vain."""
    deadline = float("inf")
    code = 0
    while any(worker.poll() is None for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
        if code == 0 and (code := _exit_code(workers)):
            deadline = time.monotonic() + SECONDS_TO_FOLLOW
    return code or _exit_code(workers)


def _exit_code(workers: Sequence[subprocess.Popen]) -> int:
    """The first exit code that is not 0, with 128 + the signal for a process that was killed, as shells have it."""
    failed = [code for worker in workers if (code := worker.poll())]
    return (128 - failed[0] if failed[0] < 0 else failed[0]) if failed else 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
