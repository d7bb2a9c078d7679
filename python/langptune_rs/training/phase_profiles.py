"""The profiles that a contrastive phase trains on, kept on disk as they are written.

Neither Ctrl-C nor a kill loses them, and a resumed phase trains on the same texts.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langptune_rs.config import RunConfig
from langptune_rs.data import Sessions
from langptune_rs.distributed.collectives import any_rank, barrier, gather_objects, rank, shard, world_size
from langptune_rs.files import whole_lines, write_text
from langptune_rs.progress import progress
from langptune_rs.seeds import derive_seed
from langptune_rs.training.interruption import InterruptibleWriter
from langptune_rs.training.models import Models
from langptune_rs.training.state import Stopwatch


@dataclass(frozen=True)
class Written:
    """The profiles of a phase."""

    texts: list[str]
    seconds: float
    """How long the process took that wrote the last of them."""


class PhaseProfiles:
    """One sampled profile for each session of a contrastive phase."""

    def __init__(
        self, config: RunConfig, folder: Path, sessions: Sessions, models: Models, writer: InterruptibleWriter
    ):
        """`folder` keeps the profiles; `sessions` are all train sessions, the same on every rank."""
        self.config, self._folder, self._sessions, self._models, self._writer = config, folder, sessions, models, writer

    def of(self, k: int, rows: NDArray[np.int64]) -> tuple[dict[int, str], float]:
        """The profiles of the sessions at `rows` (n,) for iteration k, by row, and the seconds that they took.

        The profiles are the same on every rank. If this was interrupted, the same batches go on, since batches decide
        how sums are rounded. Raises `Interrupted`.
        """
        path = self._folder / f"profiles-{k}.json"
        written = read_written(path)
        if any_rank(written is None) or written is None:
            written = self._write(k, rows, path)
        return dict(zip(rows.tolist(), written.texts, strict=True)), written.seconds

    def _write(self, k: int, rows: NDArray[np.int64], path: Path) -> Written:
        watch = Stopwatch()
        own = self._sessions.take(rows[shard(rows)])
        seeds = [derive_seed(self.config.seed, "contrastive-sample", k, int(session)) for session in own.session_ids]
        kept = KeptProfiles(path.with_name(f"{path.stem}-{rank()}-of-{world_size()}.jsonl"))

        with (
            self._models.whole("policy"),
            progress(len(own), f"iteration {k + 1}: profiles", kept.num_profiles) as advance,
        ):

            def on_batch(written: list[list[int]]) -> None:
                kept.add(written)
                advance(len(written))

            prompts = self._writer.prompts(own)
            written = self._writer.write(prompts, num_samples=1, seeds=seeds, kept=kept.batches, on_batch=on_batch)
        whole = Written([text for part in gather_objects(written.texts) for text in part], watch.lap())
        if rank() == 0:
            save_written(path, whole)
        barrier()
        kept.remove()
        return whole


class KeptProfiles:
    """A file with one line for each batch of `write_profiles`, with its hash.

    A line that a crash cut off, or that has changed since, is dropped with all lines after it.
    """

    def __init__(self, path: Path):
        self._path = path
        try:
            lines = whole_lines(path)
        except UnicodeDecodeError:
            lines = ["damaged\n"]
        self.batches: list[list[list[int]]] = []
        """Token ids of the profiles that an earlier process wrote."""
        for line in lines:
            batch = _read_batch(line)
            if batch is None:
                print(f"warning: {path} has changed since it was written; the rest is written again", file=sys.stderr)
                break
            self.batches.append(batch)
        write_text(path, "".join(map(_batch_line, self.batches)))

    @property
    def num_profiles(self) -> int:
        """How many profiles an earlier process wrote."""
        return sum(map(len, self.batches))

    def add(self, batch: list[list[int]]) -> None:
        """Keep one more batch."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_batch_line(batch))

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink()


def _batch_line(batch: list[list[int]]) -> str:
    return json.dumps({"sha256": _hash_of(batch), "tokens": batch}) + "\n"


def _read_batch(line: str) -> list[list[int]] | None:
    """The batch that `_batch_line` wrote; None for any other line."""
    try:
        saved = json.loads(line)
        batch: list[list[int]] = saved["tokens"]
        return batch if saved["sha256"] == _hash_of(batch) else None
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def save_written(path: Path, written: Written) -> None:
    """Write the profiles of a phase with their hash."""
    content = {"sha256": _hash_of(written.texts), "seconds": written.seconds, "texts": written.texts}
    write_text(path, json.dumps(content))


def read_written(path: Path) -> Written | None:
    """What `save_written` wrote; None if there is no file, or with a warning if it has changed since.

    An earlier version did not note the seconds, which then are 0.
    """
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        texts: list[str] = saved["texts"]
        if saved["sha256"] == _hash_of(texts):
            return Written(texts, float(saved.get("seconds", 0)))
    except FileNotFoundError:
        return None
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    print(f"warning: {path} has changed since it was written; its profiles are written again", file=sys.stderr)
    return None


def _hash_of(values: Sequence[str] | Sequence[Sequence[int]]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
