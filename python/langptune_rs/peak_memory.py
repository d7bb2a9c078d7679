"""The most memory that a process has held since a moment of its life."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What proc(5) has one write into clear_refs to set the peak to what is held now."""


def start_of_peak() -> None:
    """Let `peak_memory` count from now on, where the system can do that; else it counts from the process's start."""
    with suppress(OSError):
        _CLEAR.write_text(_RESET_PEAK)


def peak_memory() -> int:
    """The most bytes that this process has held at once, what its libraries take included."""
    with suppress(OSError, StopIteration, ValueError):
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
