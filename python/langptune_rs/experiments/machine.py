"""The machine and the packages of an experiment, for its page."""

import importlib.metadata
import os
import platform
import re
from pathlib import Path

PACKAGES = ("langptune-rs", "torch", "transformers", "peft", "deepspeed", "sentence-transformers", "numpy", "polars")
"""Packages whose versions can change a result; they are recorded with it."""


def versions() -> dict[str, str]:
    """The versions of `PACKAGES`, and Python's."""
    return {name: importlib.metadata.version(name) for name in PACKAGES} | {"python": platform.python_version()}


def machine() -> str:
    """The CPU, its cores, and the system, in words."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.is_file() else None
    name = found[1] if found else platform.processor() or platform.machine()
    return f"{name}, {os.cpu_count()} cores, {platform.system()}"
