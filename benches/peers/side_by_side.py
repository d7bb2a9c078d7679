"""Times several ways to do the same work in turn, each in its own process.

The processes take turns, round after round, so that a slow minute of a shared machine slows all of them alike. A
waiting process runs no thread. Each result is checked before the first round, and each process warms up in every round.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
ROUNDS = 7

Work = Callable[[], Any]
"""Does the work once and returns its result."""
Prepare = Callable[[], Work]
"""Prepares the work, which is not timed."""


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser of the options that all comparisons have: `--threads` and `--rounds`."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    return parser


def time_side_by_side(
    contenders: Mapping[str, tuple[Prepare, Mapping[str, str]]],
    check: Callable[[str, Any], None],
    *,
    threads: int,
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """The median seconds of each contender.

    A contender is a function that prepares and returns the work, with variables for the environment of its process.
    The work's result goes to `check`.
    """
    spawn = multiprocessing.get_context("spawn")
    connections: dict[str, Any] = {}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for name, (prepare, environment) in contenders.items():
        here, there = spawn.Pipe()
        wanted = {**dict.fromkeys(THREAD_VARIABLES, str(threads)), **environment}
        before = {key: os.environ.get(key) for key in wanted}
        os.environ.update(wanted)
        spawn.Process(target=_serve, args=(prepare, threads, there), daemon=True).start()
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})
        there.close()
        check(name, here.recv())
        connections[name] = here
    for _ in range(rounds):
        for name, connection in connections.items():
            connection.send(True)
            seconds[name].append(connection.recv())
    for connection in connections.values():
        connection.close()
    return {name: statistics.median(times) for name, times in seconds.items()}


def _serve(prepare: Prepare, threads: int, connection: Any) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    work = prepare()
    connection.send(work())
    while True:
        try:
            connection.recv()
        except EOFError:
            return
        seconds = _seconds(work)
        time.sleep(0.3)  # until its spinning threads have gone to sleep and no longer disturb the next process
        connection.send(seconds)


def _seconds(work: Work) -> float:
    """The seconds of the last of two or more calls that fill a fifth of a second, so that caches and CPU are warm.

    Work that takes over a second is done once, since warming up would change little.
    """
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < 0.2:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > 1:
            break
    return seconds[-1]
