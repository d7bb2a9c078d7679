"""How an experiment was made, for its page: the command, the machine and the packages."""

import importlib.metadata
import os
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
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


def command_line(words: Sequence[object], options: Mapping[str, object], seeds: Sequence[int]) -> str:
    """The `langptune` command with these words and options, for a shell.

    An option is left out where it is None or False, stands alone where it is True, and stands once for each element of
    a list. `--seeds` says how many there are, from 0 on; other `seeds` can be given from Python alone, and are named.
    """
    parts = ["langptune", *map(str, words)]
    for name, value in {**options, "--seeds": len(seeds)}.items():
        for one in value if isinstance(value, list | tuple) else [value]:
            parts += [] if one is None or one is False else [name] if one is True else [name, str(one)]
    are_first = list(seeds) == list(range(len(seeds)))
    return shlex.join(parts) + ("" if are_first else f"  # from Python, with seeds={tuple(seeds)}")
