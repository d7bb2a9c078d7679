"""Profiles of a phase, kept on disk as they are written, so that neither Ctrl-C nor a kill loses what is done."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from langptune_rs.files import whole_lines, write_text


class KeptProfiles:
    """A file with one line for each batch of `write_profiles`; a batch that a crash cut off is written again."""

    def __init__(self, path: Path):
        self._path = path
        lines = whole_lines(path)
        write_text(path, "".join(lines))
        self.batches: list[list[list[int]]] = [json.loads(line) for line in lines]
        """Token ids of the profiles that an earlier process wrote."""

    @property
    def num_profiles(self) -> int:
        """How many profiles an earlier process wrote."""
        return sum(map(len, self.batches))

    def add(self, batch: list[list[int]]) -> None:
        """Keep one more batch."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(batch) + "\n")

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink()


def save_texts(path: Path, texts: Sequence[str]) -> None:
    """Write all profiles of a phase."""
    write_text(path, json.dumps({"sha256": _hash_of(texts), "texts": texts}))


def read_texts(path: Path) -> list[str] | None:
    """What `save_texts` wrote, or None where nothing is; a file that has changed since is as good as none."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["sha256"] == _hash_of(saved["texts"]):
            return saved["texts"]
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError):
        pass
    print(f"warning: {path} has changed since it was written; its profiles are written again", file=sys.stderr)
    return None


def _hash_of(texts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()
