"""The embedder: a sentence encoder for profiles and items, whose similarity is the dot product of their embeddings."""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.attention import PACKED, Texts, attending
from langptune_rs.models.completeness import (
    AROUND_TEXTS,
    IN_BATCHES,
    check_tensors,
    check_vocabulary,
    loading_infos,
)
from langptune_rs.models.embedder_prompts import Prompted, Tokens, keep_prompts, leaves_prompts_out, prompts_of
from langptune_rs.models.folders import check_files, explained
from langptune_rs.models.plain_text import FramedText
from langptune_rs.models.quiet import quiet
from langptune_rs.models.weights import embedder_folder

if TYPE_CHECKING:  # it takes longer to import than torch, so only what opens an embedder imports it
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Transformer

TOKENS_PER_BATCH = 8192
"""Tokens in one forward pass of `encode_items` and `encode_profiles`."""
TEXTS_PER_CHUNK = 8192
"""Texts whose tokens are in memory at once, and which are sorted by length together."""
UNPADDED = ("bert", "roberta", "xlm-roberta")
"""Model types that run without padding: only their attention mixes tokens, over the whole text. Others are padded."""

_POSITION_TABLES = ("position_embeddings", "embed_positions", "wpe")
"""What transformers calls a table of learned positions: in BERT, RoBERTa and their kin, in OPT, and in GPT-2."""


class Embedder:
    """A SentenceTransformer whose embeddings have unit length and, on request, fewer dimensions.

    Attributes:
        query_prompt: what it reads before a profile.
        item_prompt: what it reads before an item.
    """

    def __init__(self, model: SentenceTransformer, config: EmbedderConfig):
        from sentence_transformers.sentence_transformer.modules import Transformer

        self.model = model.eval()
        self.config = config
        if not isinstance(model[0], Transformer):
            raise ModelError(
                f"The embedder {config.model!r} starts with a {type(model[0]).__name__}, which reads no tokens. "
                "Choose a SentenceTransformer that starts with a Transformer."
            )
        self._transformer = model[0]
        self._text = FramedText(model.tokenizer, self._rows)
        native = model.get_embedding_dimension()
        assert native is not None, "a Transformer knows its width"
        if config.dim is not None and config.dim > native:
            raise ModelError(
                f"embedder.dim = {config.dim}, but {config.model!r} gives {native} dimensions. "
                f"Choose at most {native}, or leave it out."
            )
        self.dim = config.dim or native
        self.query_prompt, self.item_prompt = prompts_of(model, config)
        self._leaves_prompts_out = leaves_prompts_out(model, config)
        self.unpadded = _runs_unpadded(self._transformer, list(model)[1:])
        check_vocabulary(
            model.tokenizer, self._transformer.model, config.model, AROUND_TEXTS if self.unpadded else IN_BATCHES
        )
        if self.unpadded:
            self._transformer.model.set_attn_implementation(PACKED)
        limits = (model.max_seq_length, _num_positions(self._transformer.model), config.max_tokens)
        model.max_seq_length = min(limit for limit in limits if limit)

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
        from sentence_transformers import SentenceTransformer

        device = "cuda" if torch.cuda.is_available() else "cpu"
        check_files(Path(source))
        with quiet(), explained(f"embedder {config.model!r}", source), loading_infos() as infos:
            model = SentenceTransformer(
                str(source), device=device, model_kwargs={"dtype": dtype}, trust_remote_code=False
            )
        with explained(f"embedder {config.model!r}", source):
            for encoder, info in infos:
                check_tensors(encoder, info, config.model)
            embedder = cls(model, config)
            embedder._check_embedding()
        return embedder

    def _check_embedding(self) -> None:
        """Raise `ModelError` unless a text gets an embedding of as many numbers as the modules say."""
        with torch.no_grad():
            embedding = self.embed(self.model, self.read(self.items(["a"])))[0]
        if len(embedding) != self.dim or not embedding.isfinite().all():
            raise ModelError(
                f"The embedder {self.config.model!r} gives {len(embedding)} numbers for a text where {self.dim} are "
                "due, or some that are no numbers: its weights or the configuration of its modules are damaged. "
                "Download or copy it again."
            )

    def save(self, folder: Path) -> None:
        """Write the encoder so that `SentenceTransformer(folder)` gives the same embeddings.

        Its `encode_query` embeds a profile, and its `encode_document` an item.
        """
        self.model.truncate_dim = self.config.dim
        keep_prompts(self.model, self.query_prompt, self.item_prompt)
        with quiet():
            self.model.save_pretrained(str(folder), create_model_card=False)

    def tokens(self, texts: Sequence[str], prompt: str = "") -> list[list[int]]:
        """Token ids of each text after a prompt, as the encoder reads them: with its special tokens, and cut at
        `max_tokens`."""
        if not texts:
            return []
        assert self.model.max_seq_length is not None, "it is set when the embedder is made"
        return self._text.rows(texts, self.model.max_seq_length, prompt)

    def _rows(self, texts: list[str], prompt: str) -> list[list[int]]:
        """The same by the encoder's own tokenizer, which makes control tokens of texts that spell them."""
        as_lists = {"text": {"padding": False}, "common": {"return_tensors": None}}
        read = self.model.preprocess(texts, prompt=prompt or None, processing_kwargs=as_lists)
        return cast(list[list[int]], read["input_ids"])

    def queries(self, profiles: Sequence[str]) -> list[Prompted]:
        """Profiles with the query prompt."""
        return [Prompted(self.query_prompt, profile) for profile in profiles]

    def items(self, texts: Sequence[str]) -> list[Prompted]:
        """The texts of items with the item prompt."""
        return [Prompted(self.item_prompt, text) for text in texts]

    def read(self, texts: Sequence[Prompted]) -> list[Tokens]:
        """The tokens of each text and of the prompt before it, in the order given."""
        read = [Tokens([])] * len(texts)
        for prompt in dict.fromkeys(prompt for prompt, _ in texts):
            rows = [row for row, (own, _) in enumerate(texts) if own == prompt]
            left_out = self._num_prompt_tokens(prompt) if self._leaves_prompts_out else 0
            for row, ids in zip(rows, self.tokens([texts[row].text for row in rows], prompt), strict=True):
                read[row] = Tokens(ids, left_out)
        return read

    def _num_prompt_tokens(self, prompt: str) -> int:
        """How many tokens the prompt takes, as SentenceTransformer counts them; 0 in a chat, whose turns it takes."""
        return cast(int, self.model.preprocess(["-"], prompt=prompt or None).get("prompt_length") or 0)

    def batches(self, tokens: Sequence[Tokens], budget: int) -> list[list[int]]:
        """The row numbers of `tokens` in batches of similar length, the longest first; every row is in one batch.

        A batch has at most `budget` tokens, or one text. Padding counts, if this encoder pads. All texts of a batch
        leave out equally many tokens.
        """
        batches: list[list[int]] = []
        size = 0
        for row in sorted(range(len(tokens)), key=lambda row: (tokens[row].left_out, -len(tokens[row]))):
            first = tokens[batches[-1][0] if batches else row]
            width = len(tokens[row] if self.unpadded else first)
            if not batches or size + width > budget or first.left_out != tokens[row].left_out:
                batches.append([])
                size, width = 0, len(tokens[row])
            batches[-1].append(row)
            size += width
        return batches

    def embed(self, module: Callable[..., dict[str, Tensor]], tokens: Sequence[Tokens]) -> Tensor:
        """Unit-length embeddings (len(tokens), dim) of one batch, float32 or wider.

        `module` is the encoder itself, or the training engine that wraps it.
        """
        ids, left_out = [row.ids for row in tokens], tokens[0].left_out
        features = (
            _packed(ids, _first_position(self._transformer.model.embeddings)) if self.unpadded else self._padded(ids)
        )
        if left_out:
            features["prompt_length"] = torch.tensor([left_out])
        device = next(self.model.parameters()).device
        features = {name: value.to(device) for name, value in features.items()}
        with attending(Texts([len(row) for row in ids])) if self.unpadded else nullcontext():
            embeddings = module(features)["sentence_embedding"]
        embeddings = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
        return torch.nn.functional.normalize(embeddings[:, : self.dim], dim=-1)

    def _padded(self, tokens: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        tokenizer = self.model.tokenizer
        rows = [torch.tensor(row) for row in tokens]
        side = tokenizer.padding_side
        return {
            "input_ids": pad_sequence(rows, True, tokenizer.pad_token_id or 0, side),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in rows], True, 0, side),
        }

    def encode_items(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-length embeddings of item texts, each after the item prompt, float32 (len(texts), dim)."""
        return self._encode(self.items(texts))

    def encode_profiles(self, texts: Sequence[str]) -> np.ndarray:
        """Unit-length embeddings of profiles, each after the query prompt, float32 (len(texts), dim)."""
        return self._encode(self.queries(texts))

    def unread_profile(self, text: str) -> str:
        """The end of a profile that is cut off because it is longer than `max_tokens`; empty where all of it is read.

        A tokenizer that cuts at the left leaves the beginning unread.
        """
        assert self.model.max_seq_length is not None, "it is set when the embedder is made"
        read = self.tokens([text], self.query_prompt)[0]
        if len(read) < self.model.max_seq_length:
            return ""
        from_left = self.model.tokenizer.truncation_side == "left"

        def is_enough(length: int) -> bool:
            part = text[len(text) - length :] if from_left else text[:length]
            return self.tokens([part], self.query_prompt)[0] == read

        enough = bisect_left(range(len(text)), True, key=is_enough)
        return (text[: len(text) - enough] if from_left else text[enough:]).strip()

    @torch.inference_mode()
    def _encode(self, texts: Sequence[Prompted]) -> np.ndarray:
        embeddings = np.empty((len(texts), self.dim), dtype=np.float32)
        for start in range(0, len(texts), TEXTS_PER_CHUNK):
            tokens = self.read(texts[start : start + TEXTS_PER_CHUNK])
            for rows in self.batches(tokens, TOKENS_PER_BATCH):
                batch = self.embed(self.model, [tokens[row] for row in rows])
                embeddings[start + np.array(rows)] = batch.cpu().numpy()
        return embeddings


class EncoderSize(NamedTuple):
    """What an encoder can do."""

    dim: int
    """Numbers in an embedding, or fewer where `EmbedderConfig.dim` says so."""
    max_tokens: int | None
    """The most tokens of a text that it reads; None for one without a limit."""


@cache
def encoder_size(config: EmbedderConfig) -> EncoderSize:
    """What the encoder of a recipe can do, whatever the recipe's own limit. Raises `ModelError` as `Embedder.load`."""
    embedder = Embedder.load(config.model_copy(update={"max_tokens": sys.maxsize}))
    limit = embedder.model.max_seq_length
    return EncoderSize(embedder.dim, None if limit == sys.maxsize else limit)


def _first_position(embeddings: nn.Module) -> int:
    """The position of a text's first token: RoBERTa and its kin start after the padding index."""
    padding = getattr(embeddings, "padding_idx", None)
    return 0 if padding is None else int(padding) + 1


def _num_positions(encoder: nn.Module) -> int | None:
    """How many tokens of a text have a position in the encoder's tables; None for an encoder without tables.

    `max_position_embeddings` counts rows, of which RoBERTa and its kin use those after the padding index only.
    """
    tables = ((module, getattr(module, name, None)) for module in encoder.modules() for name in _POSITION_TABLES)
    counts = [
        table.num_embeddings - getattr(table, "offset", _first_position(module))
        for module, table in tables
        if isinstance(table, nn.Embedding)
    ]
    return min(counts, default=None)


def _runs_unpadded(transformer: Transformer, others: Sequence[nn.Module]) -> bool:
    """Whether every module of the encoder takes texts packed into one row."""
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

    config = transformer.config
    return (
        config.model_type in UNPADDED
        and not config.is_decoder
        and all(isinstance(module, (Pooling, Normalize, Dense)) for module in others)
    )


def _packed(tokens: Sequence[Sequence[int]], first_position: int) -> dict[str, Tensor]:
    """Texts packed into one row: ids and positions (1, tokens), and where each text starts, as `Pooling` reads it."""
    lengths = torch.tensor([len(row) for row in tokens])
    ends = lengths.cumsum(0)
    starts = ends - lengths
    return {
        "input_ids": torch.tensor(list(chain.from_iterable(tokens))).unsqueeze(0),
        "position_ids": (torch.arange(int(ends[-1])) - starts.repeat_interleave(lengths) + first_position).unsqueeze(0),
        "seq_idx": torch.arange(len(tokens)).repeat_interleave(lengths).unsqueeze(0),
        "cu_seq_lens_q": torch.nn.functional.pad(ends, (1, 0)),
    }
