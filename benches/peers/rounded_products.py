"""Matrix products with rounded inputs and float32 sums, as matrix units compute them, simulated in float32.

A product of two numbers of 8 or of 11 significant bits is exact in float32, so only the order of the sums may differ
from that of a matrix unit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Parts = Callable[[Tensor], tuple[Tensor, ...]]
"""A float32 tensor as the sum of tensors that a matrix unit takes, the largest first; what is left is dropped."""

_LOWEST_13_BITS = 2**13 - 1


def bf16(values: Tensor) -> tuple[Tensor, ...]:
    """8 significant bits."""
    return (values.bfloat16().float(),)


def two_bf16(values: Tensor) -> tuple[Tensor, ...]:
    """8 significant bits, and 8 of what is left."""
    high = values.bfloat16().float()
    return high, (values - high).bfloat16().float()


def fp16(values: Tensor) -> tuple[Tensor, ...]:
    """11 significant bits, in the range of float16."""
    return (values.half().float(),)


def tf32(values: Tensor) -> tuple[Tensor, ...]:
    """11 significant bits, rounded to the nearest."""
    return (tf32_cut((values.view(torch.int32) + (_LOWEST_13_BITS + 1) // 2).view(torch.float32))[0],)


def tf32_cut(values: Tensor) -> tuple[Tensor, ...]:
    """11 significant bits; the others are cut off."""
    return ((values.view(torch.int32) & ~_LOWEST_13_BITS).view(torch.float32),)


class RoundedProducts(TorchFunctionMode):
    """Inside the block, products of float32 matrices in linear layers and in attention have rounded inputs.

    With P parts of each input, a product is the sum of those P (P + 1) / 2 products of parts that are not below
    rounding. Gradients come from products of the first parts alone; those through frozen bfloat16 matrices and through
    the output matrix are in float32, or what the caller has set. Matrices of `exact_rows` rows are multiplied exactly.
    """

    def __init__(self, parts: Parts, exact_rows: int | None = None):
        super().__init__()
        self._parts, self._exact_rows = parts, exact_rows

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch for each of its functions."""
        if func is F.linear and args[0].dtype == torch.float32 and len(args[1]) != self._exact_rows:
            return self._linear(*args, **(kwargs or {}))
        if func is F.scaled_dot_product_attention and args[0].dtype == torch.float32:
            return self._attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _linear(self, rows: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        product = self._product(rows.flatten(0, -2), weight.T).view(*rows.shape[:-1], -1)
        return product if bias is None else product + bias

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        if enable_gqa:
            key, value = (x.repeat_interleave(query.shape[1] // x.shape[1], dim=1) for x in (key, value))
        scores = self._product(query, key.mT) * (scale or 1 / math.sqrt(query.shape[-1]))
        if is_causal:
            attn_mask = scores.new_full(scores.shape[-2:], -math.inf).triu(1)
        if attn_mask is not None:
            scores = scores + attn_mask
        return self._product(scores.softmax(-1), value)

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        return cast(Tensor, _Product.apply(left, right, self._parts))


class _Product(torch.autograd.Function):
    """left @ right, of equally many dimensions."""

    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor, parts: Parts) -> Tensor:
        lefts, rights = parts(left), parts(right)
        ctx.save_for_backward(lefts[0], rights[0])
        ctx.parts = parts
        kept = [(i, j) for i in range(len(lefts)) for j in range(len(rights)) if 0 < i + j < len(lefts)]
        return sum((lefts[i] @ rights[j] for i, j in kept), torch.zeros(())) + lefts[0] @ rights[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        left, right = ctx.saved_tensors
        grad = ctx.parts(grad)[0]
        return (
            grad @ right.mT if ctx.needs_input_grad[0] else None,
            left.mT @ grad if ctx.needs_input_grad[1] else None,
            None,
        )
