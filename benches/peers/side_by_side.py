"""Times several ways to do the same work in turn, each in a process of its own.

The processes take turns, round after round, so that a slow minute of a shared machine slows all of them alike; a
process that waits has no thread that runs. Before the first round the result of each one has been checked, and in
every round it warms up.
"""

from __future__ import annotations

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


def time_side_by_side(
    contenders: Mapping[str, tuple[Callable[[], Callable[[], Any]], Mapping[str, str]]],
    check: Callable[[str, Any], None],
    *,
    threads: int,
    rounds: int = ROUNDS,
) -> dict[str, float]:
    """The median seconds of each contender.

    A contender is a function that prepares the work, in a new process with the environment given beside it, and
    returns the work; what the work returns goes to `check`.
    """
    spawn = multiprocessing.get_context("spawn")
    connections, seconds = {}, {name: [] for name in contenders}
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


def _serve(prepare: Callable[[], Callable[[], Any]], threads: int, connection: Any) -> None:
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
        time.sleep(0.3)  # until its threads that spin have gone to sleep, and leave the next one alone
        connection.send(seconds)


def _seconds(work: Callable[[], Any]) -> float:
    """Of the last of two calls or more that fill a fifth of a second, for which caches are warm and the CPU is awake.

    Work of over a second makes too little of that to be done twice.
    """
    seconds: list[float] = []
    while len(seconds) < 2 or sum(seconds) < 0.2:
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
        if seconds[-1] > 1:
            break
    return seconds[-1]
