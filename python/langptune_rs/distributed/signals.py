"""Signals: which of them are passed on to the processes of a run, and handlers for the time of a block."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


def forwarded_signals() -> list[signal.Signals]:
    """The signals that a launcher passes on to its processes: SIGINT, SIGTERM and, except under `nohup`, SIGHUP."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM] + [signal.SIGHUP] * hangs_up


@contextmanager
def handling(signums: Iterable[signal.Signals], handler: Callable[[int, object], object]) -> Iterator[None]:
    """Call `handler(signum, frame)` for these signals inside the block; the earlier handlers return after it."""
    before = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)
