"""Progress of long work: a bar with rate and time left on a terminal, plain lines elsewhere, silence off rank 0."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SECONDS_BETWEEN_LINES = 15.0
_MIB = 1 << 20


@contextmanager
def progress(total: int, description: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Yield `advance(n=1, note="")`; `note` is a short status shown beside the count.

    `done` of the `total` were done by an earlier process: they count as done, but not in the rate.
    """
    if os.environ.get("RANK", "0") != "0":
        yield lambda n=1, note="": None
    elif sys.stderr.isatty():
        with _bar(total, description, done) as advance:
            yield advance
    else:
        yield _lines(total, description, done)


@contextmanager
def byte_progress(total: int | None, description: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield `advance(num_bytes)`. Progress is shown in MiB, and not at all without a `total`."""
    if total is None:
        yield lambda num_bytes: None
        return
    with progress(-(-total // _MIB), f"{description} (MiB)", done // _MIB) as advance_mib:

        def advance(num_bytes: int) -> None:
            nonlocal done
            before, done = done, done + num_bytes
            whole = -(-done // _MIB) if done == total else done // _MIB
            if whole > before // _MIB:
                advance_mib(whole - before // _MIB)

        yield advance


@contextmanager
def _bar(total: int, description: str, done: int) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),  # a file may be called "log[bold]"
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, completed=done, note="", rate="")

        def advance(n: int = 1, note: str = "") -> None:
            state = bar.tasks[0]
            rate = rate_text((state.completed + n - done) / state.elapsed) if state.elapsed else ""
            bar.update(task, advance=n, note=note or state.fields["note"], rate=rate)

        yield advance


def _lines(total: int, description: str, done: int) -> Callable[..., None]:
    started = last_printed = time.monotonic()
    before = done

    def advance(n: int = 1, note: str = "") -> None:
        nonlocal done, last_printed
        done += n
        now = time.monotonic()
        if done < total and now - last_printed < SECONDS_BETWEEN_LINES:
            return
        last_printed = now
        rate = (done - before) / max(now - started, 1e-9)
        left = (total - done) / rate
        print(
            f"{description}: {done}/{total}, {rate_text(rate)}, {left:.0f} s left {note}".rstrip(),
            file=sys.stderr,
            flush=True,
        )

    return advance


def rate_text(rate: float) -> str:
    """`3.2/s`, or `1.5 s each` when one takes more than a second."""
    return f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
