"""Profiles of a phase, kept on disk as they are written, so that neither Ctrl-C nor a kill loses what is done."""

from __future__ import annotations

import json
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
