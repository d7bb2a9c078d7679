"""Silence for libraries that print what no user asked for."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Hide transformers' bars over weights, and what is printed on standard output, inside the block."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        if shown:
            logging.enable_progress_bar()
