"""Counting the tokens of many texts, on all cores. Counts are cached on disk by a hash of tokenizer and texts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from langptune_rs.data.preparing.tokens import TokenCounters
from langptune_rs.files import cache_folder, write_atomically
from langptune_rs.models.folders import check_texts, explained
from langptune_rs.models.weights import embedder_tokenizer_folder, policy_tokenizer_folder
from langptune_rs.progress import progress

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CHUNK_TEXTS = 8192
"""Texts that are counted and cached together."""


def token_counters(embedder: str, policy: str) -> TokenCounters:
    """Counters for an embedder and a policy, by embedded name, local folder or hub id.

    A model is looked for when its counter is first used. That raises `ModelError` if it cannot be found.
    """
    return TokenCounters(
        items=TokenizerCounter(embedder, embedder_tokenizer_folder, with_special_tokens=True),
        histories=TokenizerCounter(policy, policy_tokenizer_folder, with_special_tokens=False),
    )


@dataclass(frozen=True)
class TokenizerCounter:
    """Counts by the tokenizer of a model, as a `TokenCounter`."""

    model: str
    folder_of: Callable[[str], Path]
    with_special_tokens: bool
    """Whether the tokens that frame a text count, such as [CLS] and [SEP]."""

    @cached_property
    def name(self) -> str:
        """A hash of the tokenizer's vocabulary and rules, the same wherever its files are."""
        return hashlib.blake2b(self._tokenizer.to_str().encode(), digest_size=8).hexdigest()

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """The number of tokens of each text, uint32 (n,)."""
        counts = np.empty(len(texts), np.uint32)
        cache = cache_folder() / "tokens" / f"{self.name}-{'framed' if self.with_special_tokens else 'plain'}-text"
        with _shown(len(texts)) as advance:
            for start in range(0, len(texts), CHUNK_TEXTS):
                chunk = list(texts[start : start + CHUNK_TEXTS])
                counts[start : start + len(chunk)] = self._cached_counts(cache, chunk)
                advance(len(chunk))
        return counts

    def _cached_counts(self, folder: Path, texts: list[str]) -> np.ndarray:
        counts: np.ndarray
        path = folder / f"{_digest(texts)}.npy"
        if path.is_file():
            try:
                counts = np.load(path)
            except (OSError, ValueError, EOFError, MemoryError):
                counts = np.empty(0)
            if counts.shape == (len(texts),) and counts.dtype == np.uint32:
                return counts
        encodings = self._tokenizer.encode_batch_fast(texts, add_special_tokens=self.with_special_tokens)
        counts = np.fromiter(map(len, encodings), np.uint32, len(texts))
        with suppress(OSError):  # without the cache they are counted again next time
            write_atomically(path, lambda temporary: _save(temporary, counts))
        return counts

    @cached_property
    def _tokenizer(self) -> Tokenizer:
        tokenizer = _load(self.folder_of(self.model))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        tokenizer.encode_special_tokens = True  # as text, which they are for the models too
        return tokenizer


@contextmanager
def _shown(num_texts: int) -> Iterator[Callable[[int], None]]:
    """A progress bar where counting takes a while."""
    if num_texts <= CHUNK_TEXTS:
        yield lambda n: None
    else:
        with progress(num_texts, "counting tokens of texts") as advance:
            yield advance


def _load(folder: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    check_texts(folder)
    with explained("tokenizer", folder):
        if (folder / "tokenizer.json").is_file():
            return Tokenizer.from_file(str(folder / "tokenizer.json"))
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(folder, use_fast=True).backend_tokenizer


def _save(path: Path, counts: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, counts)


def _digest(texts: Sequence[str]) -> str:
    """A hash of texts and their order."""
    digest = hashlib.blake2b(digest_size=16)
    for text in texts:
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()
