"""Attention over tokens that lie in one row without padding.

transformers' layers call one function for attention and hand it whatever keyword arguments the model was called with.
A `Layout` among them says which tokens of the row may see each other, and does the work; without one the call is
transformers' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"
"""The name to pass to transformers as `attn_implementation`."""


class Layout(Protocol):
    """Who sees whom among the tokens of a row."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """The attention of decoder layer `layer`, (1, tokens, heads, width).

        `query` is (1, heads, tokens, width); `key` and `value` are (1, kv_heads, tokens, width).
        """


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    layout: Layout | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """What a layer calls: the layout's attention, or transformers' own where the caller gave no layout."""
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    return layout.attend(module.layer_idx, query, key, value, scaling), None


class Texts:
    """Layout of texts of these lengths: each sees all of itself. Neighbours of one length are one product."""

    def __init__(self, lengths: Sequence[int]):
        self._runs = [(len(list(run)), length) for length, run in groupby(lengths)]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        sizes = [count * length for count, length in self._runs]
        parts = zip(*(x.squeeze(0).transpose(0, 1).split(sizes) for x in (query, key, value)), strict=True)
        attended = [
            F.scaled_dot_product_attention(
                *(x.unflatten(0, run).transpose(1, 2) for x in part),  # (texts, heads, tokens, width)
                scale=scaling,
            )
            .transpose(1, 2)
            .flatten(0, 1)
            for run, part in zip(self._runs, parts, strict=True)
        ]
        return torch.cat(attended).unsqueeze(0)


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Attention of a sequence to itself, (batch, heads, tokens, width), in the layout of the arguments above."""
    return F.scaled_dot_product_attention(
        query, key, value, is_causal=True, scale=scaling, enable_gqa=key.shape[1] != query.shape[1]
    )


def masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """Attention (batch, heads, queries, width) of a few queries to many keys.

    `mask` (batch or 1, queries, keys) is added to the scores. The heads that share a key-value head are handed to the
    kernel as further queries of that head, so that keys and values are read once instead of once a head.
    """
    batch, heads, num_queries, width = query.shape
    groups = heads // key.shape[1]
    grouped = query.reshape(batch, key.shape[1], groups * num_queries, width)
    if groups > 1:
        mask = mask[:, None].expand(-1, groups, -1, -1).reshape(mask.shape[0], groups * num_queries, -1)
    out = F.scaled_dot_product_attention(grouped, key, value, attn_mask=mask[:, None], scale=scaling)
    return out.view(batch, heads, num_queries, width)


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask for `masked_attention` from what is visible, bool: 0 there and minus infinity elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
