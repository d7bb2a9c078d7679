"""Attention over packed tokens: sequences one after the other in one row, without padding.

transformers' layers call one attention function. A `Layout` decides there which tokens of the row attend to each other,
and computes it. It is the one of the block `attending`, since some layers do not pass on the arguments they are given.
Outside such a block, transformers' own attention is called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import groupby
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

PACKED = "packed"
"""The name to pass to transformers as `attn_implementation`."""
MULTIPLE = 64
"""Rows, and texts in the attention, are padded to a multiple of this many tokens. On a CPU with AMX the kernel of a
matrix product is compiled for its sizes and kept: 2 MB for a layer's, 12 MB for the attention of a text and its
gradient. Kernels for texts of every length would fill the memory."""


def missing_tokens(length: int) -> int:
    """How many padding tokens fill a row of `length` up to a multiple of `MULTIPLE`; no token attends to them."""
    return -length % MULTIPLE


class Layout(Protocol):
    """Which tokens of a row attend to each other."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """The attention output of decoder layer `layer`, (1, tokens, heads, width).

        `query` is (1, heads, tokens, width); `key` and `value` are (1, kv_heads, tokens, width).
        """


_LAYOUT: ContextVar[Layout | None] = ContextVar("layout", default=None)


@contextmanager
def attending(layout: Layout) -> Iterator[None]:
    """Inside the block, layers that were loaded with `PACKED` attend as `layout` says."""
    token = _LAYOUT.set(layout)
    try:
        yield
    finally:
        _LAYOUT.reset(token)


def packed_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The attention function that a layer calls: the layout's, or transformers' own outside of `attending`."""
    layout = _LAYOUT.get()
    if layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    return layout.attend(cast(int, module.layer_idx), query, key, value, scaling), None


class Texts:
    """Layout of texts of these lengths: a token attends to its whole text. Neighbours of one length are one product."""

    def __init__(self, lengths: Sequence[int]):
        self._runs = [(len(list(run)), length) for length, run in groupby(lengths)]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """See `Layout.attend`."""
        sizes = [count * length for count, length in self._runs]
        parts = zip(*(torch.split(x.squeeze(0).transpose(0, 1), sizes) for x in (query, key, value)), strict=True)
        outputs = []
        for run, part in zip(self._runs, parts, strict=True):
            q, k, v = (x.unflatten(0, run).transpose(1, 2) for x in part)  # (texts, heads, tokens, width)
            outputs.append(_attention(q, k, v, scale=scaling).transpose(1, 2).flatten(0, 1))
        return torch.cat(outputs).unsqueeze(0)


def _attention(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    """torch's attention. Where a CPU needs its gradient it is computed in float32, whatever the inputs are.

    torch's gradient in 16 bits makes a oneDNN primitive for each small product there. That is slower than float32, most
    of all for short texts on a CPU with AMX, and rounds more.
    """
    is_slow = query.device.type == "cpu" and query.dtype in (torch.bfloat16, torch.float16)
    if not (is_slow and torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)):
        return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, **options)
    mask = attn_mask.float() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
    wide = F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=mask, **options)
    return wide.to(query.dtype)


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
    """Causal self-attention (batch, heads, tokens, width) of `query` (batch, heads, tokens, width).

    `key` and `value` are (batch, kv_heads, tokens, width).
    """
    length = query.shape[2]
    missing = missing_tokens(length) if query.device.type == "cpu" else 0
    if missing:  # padding at the end, which causal attention does not see
        query, key, value = (F.pad(x, (0, 0, 0, missing)) for x in (query, key, value))
    is_grouped = key.shape[1] != query.shape[1]
    if is_grouped and query.is_cuda and query.dtype == torch.float32:
        # The kernels that know groups take 16 bits there; without them torch would keep a (tokens, tokens) matrix.
        key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        is_grouped = False
    out = _attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=is_grouped)
    return out[:, :, :length]


def masked_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """Attention (batch, heads, queries, width) of a few queries to many keys.

    `query` is (batch, heads, queries, width), `key` and `value` are (batch, kv_heads, keys, width). `mask`, from
    `for_heads`, is added to the scores. Heads that share a key-value head are passed to the kernel as more queries of
    that head, so that keys and values are read once instead of once per head.
    """
    batch, heads, num_queries, width = query.shape
    num_rows = heads // key.shape[1] * num_queries
    grouped = query.reshape(batch, key.shape[1], num_rows, width)
    missing_rows, missing_keys = mask.shape[2] - num_rows, mask.shape[3] - key.shape[2]
    if missing_rows or missing_keys:
        grouped = F.pad(grouped, (0, 0, 0, missing_rows))
        key, value = (F.pad(x, (0, 0, 0, missing_keys)) for x in (key, value))
    out = _attention(grouped, key, value, attn_mask=mask, scale=scaling)
    return out[:, :, :num_rows].reshape(batch, heads, num_queries, width)


def for_heads(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """A mask (batch or 1, queries, keys) as `masked_attention` takes it for these heads. All layers can share it."""
    groups = query.shape[1] // key.shape[1]
    rows = mask[:, None].expand(-1, groups, -1, -1).reshape(mask.shape[0], 1, groups * mask.shape[1], mask.shape[2])
    if rows.device.type != "cpu" or rows.shape[2] < MULTIPLE:  # so few rows are not worth a padded copy of the keys
        return rows
    rows = F.pad(rows, (0, missing_tokens(rows.shape[3])), value=float("-inf"))
    return F.pad(rows, (0, 0, 0, missing_tokens(rows.shape[2])))  # rows that are cut off again


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """An additive mask in the shape of `visible`, bool: 0 where it is true and minus infinity elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
