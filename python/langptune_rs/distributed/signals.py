"""Signals: which of them concern the processes of a run, and who hears them meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager


def forwarded_signals() -> list[signal.Signals]:
    """The signals that processes hear of from the one that started them; under `nohup` a hangup is not one of them."""
    hangs_up = signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN
    return [signal.SIGINT, signal.SIGTERM] + [signal.SIGHUP] * hangs_up


@contextmanager
def handling(signums: Iterable[signal.Signals], handler: Callable[[int, object], object]) -> Iterator[None]:
    """Call `handler(signum, frame)` for these signals inside the block, and whoever heard them before after it."""
    before = {signum: signal.signal(signum, handler) for signum in signums}
    try:
        yield
    finally:
        for signum, previous in before.items():
            signal.signal(signum, previous)
