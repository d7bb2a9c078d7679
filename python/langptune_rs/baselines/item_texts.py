"""Methods that rank by the embeddings of the items' texts alone."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from langptune_rs import ItemIndex
from langptune_rs.baselines.method import ScoredSessions, VectorMethod
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.data import Catalog, Dataset, Sessions
from langptune_rs.evaluation.summary import LIKELIHOOD_TEMPERATURE

ITEM_VECTORS = "item_vectors.npy"
"""The file of the items' embeddings."""


class ItemTextMethod(VectorMethod):
    """A session's vector is made of the embeddings of its items, which the untrained embedder gave; nothing is learned.

    It tells what a text about the user adds to the texts of the items themselves.
    """

    Config = EmbedderConfig
    needs = frozenset({"embedder"})

    def __init__(self, item_vectors: NDArray[np.float32] | None = None):
        """`item_vectors` is float32 (n_items, dim), with rows of unit length."""
        self._item_vectors = item_vectors

    def fit(self, dataset: Dataset, config: EmbedderConfig, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`; the items are embedded."""
        self._item_vectors = embed_items(config, dataset.catalog)

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """The items' embeddings, unit rows."""
        assert self._item_vectors is not None, "fit or open comes first"
        return self._item_vectors

    def score_targets(self, sessions: Sessions) -> ScoredSessions:
        """See `Method.score_targets`, (N, 1). The scores are similarities, so there are log-probabilities too."""
        ranks, log_probs = ItemIndex(self.item_vectors).score_targets(
            self.session_vectors(sessions), sessions.targets, sessions.histories, temperature=LIKELIHOOD_TEMPERATURE
        )
        assert isinstance(ranks, np.ndarray)  # one target for each session
        assert isinstance(log_probs, np.ndarray)
        return ScoredSessions(ranks[:, None], log_probs[:, None])

    def save(self, folder: Path) -> None:
        """See `Method.save`; the embeddings are written, so that no model is needed to rank again."""
        np.save(folder / ITEM_VECTORS, self.item_vectors, allow_pickle=False)

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`."""
        return cls(np.load(folder / ITEM_VECTORS, allow_pickle=False))


def embed_items(config: EmbedderConfig, catalog: Catalog) -> NDArray[np.float32]:
    """What the untrained embedder makes of the items' texts, float32 (n_items, dim), rows of unit length.

    Raises `ModelError` when the embedder cannot be found.
    """
    from langptune_rs.models.embedder import Embedder

    return Embedder.load(config).encode_items(catalog.texts)
