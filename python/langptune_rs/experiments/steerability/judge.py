"""The judge of profiles: a sentence encoder that took no part in training, and stands apart from the embedder."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.embedder import Embedder

WORDLLAMA = "wordllama"
_WEIGHTS, _TOKENIZER = "weights/l2_supercat_256.safetensors", "tokenizers/l2_supercat_tokenizer_config.json"

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Unit-length vectors of texts, float32 (n, dim); a text that it cannot read is 0."""


@dataclass(frozen=True)
class Judge:
    """An encoder of profiles and items.

    Attributes:
        name: as it was asked for.
        profiles, items: how it reads them.
        is_embedder: whether it is the model that the run's embedder started from, which is no independent judge.
    """

    name: str
    profiles: Encode
    items: Encode
    is_embedder: bool = False

    def similarities(self, texts: Sequence[str], other: str) -> NDArray[np.float64]:
        """The cosine of each text, as a profile, and another one, (len(texts),)."""
        vectors = self.profiles([*texts, other]).astype(np.float64)
        found: NDArray[np.float64] = vectors[:-1] @ vectors[-1]
        return found


def find_judge(name: str, embedder: EmbedderConfig) -> Judge:
    """The judge of this name: "wordllama", or an encoder by name, folder or hub id as for `embedder.model`.

    `embedder` is that of the run. Raises `ModelError` when the judge is not there.
    """
    if name.lower() == WORDLLAMA:
        encode = _word_vectors()
        return Judge(name, encode, encode)
    model = Embedder.load(EmbedderConfig(model=name))
    return Judge(name, model.encode_profiles, model.encode_items, is_embedder=name.lower() == embedder.model.lower())


def _word_vectors() -> Encode:
    """The mean of a text's token vectors, from the files of the package wordllama, none of whose code is run.

    The vectors were trained on pairs of sentences, from the token embeddings of large language models.
    """
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    spec = importlib.util.find_spec(WORDLLAMA)
    folder = Path(*(spec.submodule_search_locations or [])) if spec else None
    if folder is None or not (folder / _WEIGHTS).is_file() or not (folder / _TOKENIZER).is_file():
        raise ModelError(
            f"The judge {WORDLLAMA!r} needs {WORDLLAMA}/{_WEIGHTS}, which is not installed. `pip install --no-deps "
            f"{WORDLLAMA}` brings it; or give another sentence encoder with --judge, by a folder or a hub id."
        )
    (vectors,) = load_file(folder / _WEIGHTS).values()
    vectors = vectors.astype(np.float32)
    tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def encode(texts: Sequence[str]) -> NDArray[np.float32]:
        found = np.zeros((len(texts), vectors.shape[1]), dtype=np.float32)
        for row, tokens in enumerate(tokenizer.encode_batch(list(texts), add_special_tokens=False)):
            if tokens.ids:
                mean = vectors[tokens.ids].mean(axis=0)
                found[row] = mean / max(float(np.linalg.norm(mean)), 1e-9)
        return found

    return encode
