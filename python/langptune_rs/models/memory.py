"""Memory of the process: what it keeps, and what it gives back."""

from __future__ import annotations

import ctypes
import gc
import sys

import torch

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def free_memory() -> None:
    """Give back what nothing refers to any more: engines stand in cycles, and a GPU's memory is kept for later."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def keep_freed_memory() -> None:
    """Tell glibc's allocator to reuse freed memory instead of handing it back to the kernel.

    Decoding makes and frees the same tensors of some megabytes at every token. glibc maps such blocks afresh each
    time, and the page faults cost more than the arithmetic: a softmax over 64 rows of 49,152 logits takes 7.6 ms with
    the default and 2.7 ms with this. Does nothing outside Linux with glibc.
    """
    if libc := _glibc():
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def trim_freed_memory() -> None:
    """Hand what is free back to the kernel once, where the next phase asks for other sizes and would not find them."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if libc.mallopt and libc.malloc_trim else None
    except (OSError, AttributeError):
        return None
