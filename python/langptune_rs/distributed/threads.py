"""The threads of a process: how many there are, and what they do while they wait."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

_COUNTS = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS")
"""What torch and the core read."""
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""What libraries of OpenMP read."""
SPINS = "3000"
"""How often a thread looks for work before it sleeps."""


def thread_counts(environment: Mapping[str, str], default: int) -> dict[str, str]:
    """The variables for `default` threads, but for those that the user has set. The core follows torch's number."""
    threads = environment.get("OMP_NUM_THREADS", str(default))
    return {name: environment.get(name, threads) for name in _COUNTS}


def sleep_while_waiting(environment: MutableMapping[str, str]) -> None:
    """Let torch's threads sleep soon when they wait for each other, unless the user has said how they wait.

    By default they spin for milliseconds. Where another process has taken a CPU, each of many thousand small operations
    then waits for a thread that is not scheduled, while the one that spins keeps the CPU from the core's threads. Where
    they sleep at once, updates lose speed alone (benches/results/engine-intel-xeon-2-cores-2026-11-29.md). This must be
    called before torch is imported.
    """
    if not any(name in environment for name in _WAITING):
        environment["GOMP_SPINCOUNT"] = SPINS
