"""Profiles of many threads through one embedder: one batch for all that wait, and none for what is known already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from langptune_rs.errors import ModelError, sentence
from langptune_rs.recommending.vectors import ProfileEncoder
from langptune_rs.serving.kept import Kept

TEXTS_PER_TURN = 32
"""Texts that one request puts into a batch. One with more of them takes turns with the others."""
NUM_KEPT = 4096
"""Texts whose embeddings are kept."""

Embedding = NDArray[np.float32]


class SharedEncoder:
    """Embeds profiles for many threads with an embedder that only one thread may use at a time.

    Texts that come while the embedder is busy go through it together when it is free. So an embedding may be rounded
    otherwise than in a batch of its own. While it is kept, a text has the same embedding to the bit.
    """

    def __init__(self, embedder: ProfileEncoder, on_batch: Callable[[int], object] = lambda size: None):
        """`on_batch` is called with the number of texts of each batch."""
        self._embedder, self._on_batch = embedder, on_batch
        self._busy = Lock()
        self._guard = Lock()
        self._asked: dict[str, Future[Embedding]] = {}
        """Texts that wait or are in a batch."""
        self._waiting: list[str] = []
        self._kept: Kept[str, Embedding] = Kept(NUM_KEPT)
        self._unread: Kept[str, str] = Kept(NUM_KEPT)

    @property
    def dim(self) -> int:
        """How many numbers an embedding has."""
        return self._embedder.dim

    def encode_profiles(self, texts: Sequence[str]) -> Embedding:
        """Unit-length embeddings of profiles, float32 (len(texts), dim). Raises `ModelError` where it fails."""
        parts = [self._encode(texts[start : start + TEXTS_PER_TURN]) for start in range(0, len(texts), TEXTS_PER_TURN)]
        return np.concatenate([np.empty((0, self.dim), dtype=np.float32), *parts])

    def unread_profile(self, text: str) -> str:
        """See `Embedder.unread_profile`."""
        unread = self._unread.get(text)
        if unread is None:
            with self._busy:
                unread = self._embedder.unread_profile(text)
            self._unread.keep(text, unread)
        return unread

    def _encode(self, texts: Sequence[str]) -> Embedding:
        with self._guard:
            found = [self._ask(text) for text in texts]
        if not all(isinstance(embedding, np.ndarray) or embedding.done() for embedding in found):
            with self._busy:  # who had it before may have embedded what is asked here
                self._embed_waiting()
        return np.stack([known if isinstance(known, np.ndarray) else known.result() for known in found])

    def _ask(self, text: str) -> Embedding | Future[Embedding]:
        known = self._kept.get(text)
        if known is not None:
            return known
        if text not in self._asked:
            self._asked[text] = Future()
            self._waiting.append(text)
        return self._asked[text]

    def _embed_waiting(self) -> None:
        """Embed all texts that wait. A text that fails takes no other with it."""
        with self._guard:
            texts, self._waiting = self._waiting, []
        if not texts:
            return
        self._on_batch(len(texts))
        try:
            embeddings = self._embedder.encode_profiles(texts)
        except Exception:
            for text in texts:
                self._embed_alone(text)
        else:
            for text, embedding in zip(texts, embeddings, strict=True):
                self._give(text, embedding)

    def _embed_alone(self, text: str) -> None:
        try:
            self._give(text, self._embedder.encode_profiles([text])[0])
        except Exception as error:
            failure = ModelError(f"The embedder cannot read a text: {sentence(str(error) or type(error).__name__)}")
            failure.__cause__ = error
            with self._guard:
                self._asked.pop(text).set_exception(failure)

    def _give(self, text: str, embedding: Embedding) -> None:
        own = embedding.copy()  # not a view that keeps the whole batch in memory
        own.flags.writeable = False
        with self._guard:
            self._kept.keep(text, own)
            self._asked.pop(text).set_result(own)
