"""Silencing libraries that print what no user asked for."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from logging import LogRecord, getLogger
from threading import RLock, get_ident
from typing import Any

from tqdm import tqdm
from transformers.utils import logging

_ONE_THREAD = RLock()
"""What is changed inside a block belongs to the whole process, and two threads would undo it out of order."""


@contextmanager
def quiet() -> Iterator[None]:
    """Hide progress bars and the standard output of libraries inside the block.

    What other threads print meanwhile is shown. One that enters a block of its own waits until this one has ended.
    """
    with _ONE_THREAD:
        shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
        bar = tqdm.__init__
        reporter = getLogger("transformers.modeling_utils")
        reporter.addFilter(_is_no_report)
        tqdm.__init__ = _hidden_here(bar)  # the bar over a GGUF file is not transformers' own
        try:
            with redirect_stdout(_Others(sys.stdout)), warnings.catch_warnings():
                # peft asks transformers for a property by its old name.
                warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
                # An error of ours names them.
                warnings.filterwarnings("ignore", "Found missing adapter keys", UserWarning)
                # For experts peft sets a rank by the name of their weights, and then misses a module of that name.
                warnings.filterwarnings("ignore", "The following (rank|alpha)_pattern keys", RuntimeWarning)
                yield
        finally:
            tqdm.__init__ = bar
            reporter.removeFilter(_is_no_report)
            if shown:
                logging.enable_progress_bar()  # type: ignore[no-untyped-call]  # the same


class _Others(io.TextIOBase):
    """A stream that drops what the thread writes that made it, and passes on what others write."""

    def __init__(self, stream: Any) -> None:
        self._stream, self._thread = stream, get_ident()

    def write(self, text: str) -> int:
        if get_ident() != self._thread:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()

    def fileno(self) -> int:
        number: int = self._stream.fileno()
        return number


def _hidden_here(start: Any) -> Any:
    """The start of a progress bar, which this thread does not see."""
    thread = get_ident()

    def hidden(bar: tqdm[Any], *args: Any, **options: Any) -> None:
        start(bar, *args, **options | {"disable": True} if get_ident() == thread else options)

    return hidden


def _is_no_report(record: LogRecord) -> bool:
    """False for transformers' table of missing and unexpected tensors: those that matter are an error of ours."""
    return "LOAD REPORT" not in record.getMessage()
