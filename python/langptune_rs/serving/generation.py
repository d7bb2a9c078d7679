"""Writing by a language model for many callers: one thread that writes, and a bounded queue before it."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from threading import Condition, Thread
from typing import Any, Generic, TypeVar

from langptune_rs.errors import LangptuneError, ModelError, sentence
from langptune_rs.serving.problems import Problem

log = logging.getLogger("langptune.serving")

MAX_WAITING = 16
"""Callers that may wait for the one that is answered."""
SECONDS = 120.0
"""How long a caller waits for a text."""

T = TypeVar("T")
OnToken = Callable[[], None]
Work = Callable[[OnToken], T]
"""Writes a text; calls what it is given before each token, which ends it when nobody waits for it any more."""


class _Stopped(Exception):
    """Nobody waits for the text any more."""


class _Job(Generic[T]):
    """A text that is asked for."""

    def __init__(self, work: Work[T]):
        self.work, self.is_stopped = work, False
        self.future: Future[T] = Future()

    def on_token(self) -> None:
        if self.is_stopped:
            raise _Stopped


class Generation:
    """Writes one text after the other."""

    def __init__(
        self,
        max_waiting: int = MAX_WAITING,
        seconds: float = SECONDS,
        on_written: Callable[[float], object] = lambda seconds: None,
    ):
        """`on_written` is called with the seconds that each text took."""
        self.max_waiting, self.seconds, self._on_written = max_waiting, seconds, on_written
        self._jobs: deque[_Job[object]] = deque()
        self._change = Condition()
        self._is_busy = self._is_closed = False
        self._usual_seconds = 1.0
        Thread(target=self._write_all, name="generation", daemon=True).start()

    @property
    def num_waiting(self) -> int:
        """Callers in the queue, without the one that is answered."""
        return len(self._jobs)

    async def write(self, work: Work[T], gone: Callable[[], Awaitable[object]]) -> T:
        """What `work` returns, done on the thread that writes. It is given up when the caller has left, for which
        `gone` waits, or when the time is up.

        Raises `Problem` (429) when too many wait already and (504) when the time is up, the `LangptuneError` that
        `work` raises, and `ModelError` for anything else that it raises.
        """
        job = self._queue(work)
        text, leaving = asyncio.wrap_future(job.future), asyncio.ensure_future(gone())
        either: set[asyncio.Future[Any]] = {text, leaving}
        try:
            await asyncio.wait(either, timeout=self.seconds, return_when=asyncio.FIRST_COMPLETED)
            if text.cancelled():
                raise _closing()
            if text.done():
                return text.result()
            if leaving.done():
                raise Problem(499, "gone", "The caller has left.")
            raise Problem(
                504, "timeout", f"No text was written within {self.seconds:g} seconds. Ask again when fewer others do."
            )
        finally:
            self._stop(job)
            leaving.cancel()
            text.cancel()

    def close(self) -> None:
        """Give up all that waits, and end the thread."""
        with self._change:
            self._is_closed = True
            for job in self._jobs:
                job.future.cancel()
            self._jobs.clear()
            self._change.notify_all()

    def _queue(self, work: Work[T]) -> _Job[T]:
        job = _Job(work)
        with self._change:
            if self._is_closed:
                raise _closing()
            if len(self._jobs) + self._is_busy > self.max_waiting:
                seconds = math.ceil(self._usual_seconds * (1 + len(self._jobs)))
                raise Problem(
                    429,
                    "overloaded",
                    f"{len(self._jobs)} others wait for a text already. Ask again in {seconds} seconds.",
                    {"Retry-After": str(seconds)},
                )
            self._jobs.append(job)  # type: ignore[arg-type]  # a deque of all of them
            self._change.notify_all()
        return job

    def _stop(self, job: _Job[T]) -> None:
        """Nobody waits for a job any more: it leaves the queue, or ends at its next token."""
        job.is_stopped = True
        with self._change:
            if job in self._jobs:
                self._jobs.remove(job)  # type: ignore[arg-type]
        job.future.cancel()

    def _write_all(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._jobs or self._is_closed)
                if self._is_closed:
                    return
                job = self._jobs.popleft()
                self._is_busy = True
            if job.future.set_running_or_notify_cancel():
                self._do(job)
            self._is_busy = False

    def _do(self, job: _Job[object]) -> None:
        start = time.monotonic()
        try:
            text = job.work(job.on_token)
        except (LangptuneError, _Stopped) as error:
            job.future.set_exception(error)
        except BaseException as error:
            log.error("writing a text failed", exc_info=error)
            why = sentence(str(error) or type(error).__name__)
            failure = ModelError(f"The policy cannot write this text: {why}")
            job.future.set_exception(failure)
        else:
            seconds = time.monotonic() - start
            self._usual_seconds += (seconds - self._usual_seconds) / 8
            self._on_written(seconds)
            job.future.set_result(text)


def _closing() -> Problem:
    return Problem(503, "closing", "The server is ending.")
