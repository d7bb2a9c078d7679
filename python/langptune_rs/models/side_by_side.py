"""Attention of many texts that lie one behind the other in one row, so that nothing is padded.

transformers' layers call one function for attention and hand it whatever keyword arguments the model was called with.
`Texts` among them says where one text ends; without them the call is transformers' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

SIDE_BY_SIDE = "side_by_side"
"""The name to pass to transformers as the implementation of attention."""


class Texts:
    """Texts of these lengths in a row: each attends to itself, all of it. Neighbours of one length are one product."""

    def __init__(self, lengths: Sequence[int]):
        self.runs = [(len(list(run)), length) for length, run in groupby(lengths)]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """Attention (1, tokens, heads, width) of queries, keys and values (1, heads, tokens, width)."""
        sizes = [count * length for count, length in self.runs]
        parts = zip(*(x.squeeze(0).transpose(0, 1).split(sizes) for x in (query, key, value)), strict=True)
        attended = [
            F.scaled_dot_product_attention(
                *(x.unflatten(0, run).transpose(1, 2) for x in part),  # (texts, heads, tokens, width)
                scale=scaling,
            )
            .transpose(1, 2)
            .flatten(0, 1)
            for run, part in zip(self.runs, parts, strict=True)
        ]
        return torch.cat(attended).unsqueeze(0)


def side_by_side_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    texts: Texts | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """What a layer calls."""
    if texts is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    return texts.attend(query, key, value, scaling), None


AttentionInterface.register(SIDE_BY_SIDE, side_by_side_attention)
AttentionMaskInterface.register(SIDE_BY_SIDE, sdpa_mask)
