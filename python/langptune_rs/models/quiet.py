"""Silencing libraries that print what no user asked for."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partialmethod
from logging import LogRecord, getLogger

from tqdm import tqdm
from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Hide progress bars and the standard output of libraries inside the block."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # transformers leaves it untyped
    bar = tqdm.__init__
    reporter = getLogger("transformers.modeling_utils")
    reporter.addFilter(_is_no_report)
    tqdm.__init__ = partialmethod(bar, disable=True)  # the bar over a GGUF file is not transformers' own
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
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


def _is_no_report(record: LogRecord) -> bool:
    """False for transformers' table of missing and unexpected tensors: those that matter are an error of ours."""
    return "LOAD REPORT" not in record.getMessage()
