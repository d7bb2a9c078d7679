"""The embedder: a sentence encoder that puts profiles and items into one space, where similarity is the dot product."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from langptune_rs.errors import ModelError
from langptune_rs.models.config import EmbedderConfig
from langptune_rs.models.quiet import quiet
from langptune_rs.models.weights import embedder_folder

TOKENS_PER_BATCH = 8192
"""Padded tokens in one forward pass of `encode_items` and `encode_profiles`."""


class Embedder:
    """A SentenceTransformer whose embeddings have unit length and, on request, fewer dimensions."""

    def __init__(self, model: SentenceTransformer, config: EmbedderConfig):
        self.model = model.eval()
        self.config = config
        native = model.get_embedding_dimension()
        if config.dim is not None and config.dim > native:
            raise ModelError(
                f"embedder.dim = {config.dim}, but {config.model!r} gives {native} dimensions. "
                f"Choose at most {native}, or leave it out."
            )
        self.dim = config.dim or native
        model.max_seq_length = min(model.max_seq_length or config.max_tokens, config.max_tokens)

    @classmethod
    def load(cls, config: EmbedderConfig, dtype: torch.dtype = torch.float32) -> Embedder:
        """The pre-trained embedder of a recipe. Raises `ModelError` when it cannot be found."""
        return cls._open(embedder_folder(config.model), config, dtype)

    @classmethod
    def from_folder(cls, folder: Path, config: EmbedderConfig, dtype: torch.dtype = torch.float32) -> Embedder:
        """An embedder saved by `save`."""
        return cls._open(folder, config, dtype)

    @classmethod
    def _open(cls, source: Path | str, config: EmbedderConfig, dtype: torch.dtype) -> Embedder:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with quiet():
            model = SentenceTransformer(
                str(source), device=device, model_kwargs={"dtype": dtype}, trust_remote_code=False
            )
        return cls(model, config)

    def save(self, folder: Path) -> None:
        """Write the encoder so that `SentenceTransformer(folder)` gives the same embeddings."""
        self.model.truncate_dim = self.config.dim
        with quiet():
            self.model.save_pretrained(str(folder), create_model_card=False)

    def forward(self, texts: Sequence[str]) -> Tensor:
        """Unit-length float32 embeddings (len(texts), dim) of one batch, with gradients."""
        return self.embed(self.model, texts)

    def embed(self, module: Callable[..., dict[str, Tensor]], texts: Sequence[str]) -> Tensor:
        """As `forward`, through `module`: the encoder itself or the training engine around it."""
        features = self.model.preprocess(list(texts))
        device = next(self.model.parameters()).device
        features = {name: value.to(device) for name, value in features.items() if isinstance(value, Tensor)}
        embeddings = module(features)["sentence_embedding"].float()
        return torch.nn.functional.normalize(embeddings[:, : self.dim], dim=-1)

    def encode_items(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-length embeddings of item texts, float32 (len(texts), dim)."""
        return self._encode(texts)

    def encode_profiles(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-length embeddings of profiles, float32 (len(texts), dim), with the query prompt if there is one."""
        return self._encode(self.as_queries(texts))

    def as_queries(self, texts: Sequence[str]) -> list[str]:
        """Profiles as the encoder sees them: with the query prompt in front."""
        return [self.config.query_prompt + text for text in texts]

    @torch.inference_mode()
    def _encode(self, texts: Sequence[str]) -> np.ndarray:
        """Encode in batches of similar length, so that little of a batch is padding."""
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        embeddings = np.empty((len(texts), self.dim), dtype=np.float32)
        for batch in _length_batches(order, texts, self.model.max_seq_length):
            embeddings[batch] = self.forward([texts[i] for i in batch]).cpu().numpy()
        return embeddings


def _length_batches(order: list[int], texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Cut `order`, sorted by length, where a batch would exceed `TOKENS_PER_BATCH`, at four characters a token."""
    batches: list[list[int]] = []
    for i in order:
        width = min(len(texts[i]) // 4 + 2, max_tokens)
        if not batches or (len(batches[-1]) + 1) * width > TOKENS_PER_BATCH:
            batches.append([])
        batches[-1].append(i)
    return batches
