"""Memory behaviour of the process on a CPU."""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Tell glibc's allocator to reuse freed memory instead of handing it back to the kernel.

    Decoding makes and frees the same tensors of some megabytes at every token. glibc maps such blocks afresh each
    time, and the page faults cost more than the arithmetic: a softmax over 64 rows of 49,152 logits takes 7.6 ms with
    the default and 2.7 ms with this. Does nothing outside Linux with glibc.
    """
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
