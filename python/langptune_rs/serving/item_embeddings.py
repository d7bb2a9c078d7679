"""The embeddings of a catalog, kept on disk: a server that is started again need not read every item again."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langptune_rs import __version__
from langptune_rs.data import Dataset
from langptune_rs.files import cache_folder, write_atomically
from langptune_rs.models.embedder import Embedder
from langptune_rs.runs.trained import TrainedRun

FEWEST = 1_000
"""Fewer items are embedded in seconds, and not kept."""
NUM_KEPT = 8
"""Catalogs whose embeddings are kept; of more, those that were made first go."""
_FOLDER = "item-embeddings"


def embed_catalog(run: TrainedRun, dataset: Dataset) -> tuple[Embedder, NDArray[np.float32]]:
    """A run's trained embedder, and its embeddings of the catalog, float32 (n_items, dim).

    They are read from the cache where this embedder has embedded this catalog before.
    """
    path = _path(run, dataset)
    embedder = run.embedder()
    num_items = len(dataset.catalog)
    known = _read(path, (num_items, embedder.dim))
    if known is not None:
        return embedder, known
    embeddings: NDArray[np.float32] = embedder.encode_items(dataset.catalog.texts)
    if num_items >= FEWEST and path == _path(run, dataset):  # the run has not changed meanwhile
        with suppress(OSError):  # without it the items are embedded each time
            write_atomically(path, lambda temporary: _write(temporary, embeddings))
            for old in sorted(path.parent.glob("*.npy"), key=lambda file: file.stat().st_mtime)[:-NUM_KEPT]:
                old.unlink()
    return embedder, embeddings


def _path(run: TrainedRun, dataset: Dataset) -> Path:
    """The file for this embedder and this catalog, by what is in them."""
    settings = [run.config.embedder.model_dump(mode="json"), run.config.engine.precision]
    made_of = json.dumps([__version__, run.version, dataset.content["items"], settings], sort_keys=True)
    return cache_folder() / _FOLDER / f"{hashlib.sha256(made_of.encode()).hexdigest()[:32]}.npy"


def _read(path: Path, shape: tuple[int, int]) -> NDArray[np.float32] | None:
    """The embeddings in a file; None where there is none, or another thing."""
    try:
        embeddings: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    is_whole = embeddings.shape == shape and embeddings.dtype == np.float32 and bool(np.isfinite(embeddings).all())
    return embeddings if is_whole else None


def _write(path: Path, embeddings: NDArray[np.float32]) -> None:
    with path.open("wb") as file:
        np.save(file, embeddings, allow_pickle=False)
