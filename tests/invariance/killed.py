"""Training processes that start at once, since the libraries are imported in the process they are forked from."""

import multiprocessing
import os
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["langptune_rs.experiments.run"])


def _work(arguments: list[str], place: dict[str, str], log: Path, fault: Callable[[], object] | None) -> None:
    """What `langptune train --nproc N` runs in each process."""
    os.environ.update(place)
    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    from langptune_rs.experiments.run import main

    if fault:
        fault()
    sys.exit(main(arguments))


def start(
    config: Path, output: Path, log: Path, num_processes: int = 1, fault: Callable[[], object] | None = None
) -> list[BaseProcess]:
    """The processes of a run that goes on where the one before was stopped; each calls `fault` before it works."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    arguments = ["--config", str(config), "--output", str(output), "--resume"]
    shared = {"WORLD_SIZE": str(num_processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    places = [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(num_processes)]
    processes = [_CONTEXT.Process(target=_work, args=(arguments, place, log, fault)) for place in places]
    for process in processes:
        process.start()
    return processes


def kill_after(processes: list[BaseProcess], seconds: float, begun: Callable[[], bool]) -> bool:
    """Kill all of them `seconds` after `begun`; False if one had ended before, all of them without an error."""
    while not begun() and all(process.is_alive() for process in processes):
        time.sleep(0.01)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(process.is_alive() for process in processes):
        time.sleep(0.001)
    killed = any(process.is_alive() for process in processes)
    for process in processes:
        with suppress(ProcessLookupError):
            process.kill()
    for process in processes:
        process.join()
    assert killed or [process.exitcode for process in processes] == [0] * len(processes)
    return killed
