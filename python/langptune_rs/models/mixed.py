"""Products in float32 with frozen matrices that are kept in bfloat16."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MixedLinear(nn.Linear):
    """A linear layer that computes in the precision of its input, whatever that of its frozen weights is."""

    def forward(self, rows: Tensor) -> Tensor:
        """The product (..., out) of rows (..., in)."""
        if rows.dtype == self.weight.dtype:
            return super().forward(rows)
        product = cast(Tensor, _FrozenProduct.apply(rows, self.weight))
        return product if self.bias is None else product + self.bias


def accept_mixed(module: nn.Module) -> None:
    """Let every frozen linear layer of `module` take inputs in a longer precision than its weights have."""
    for layer in module.modules():
        if type(layer) is nn.Linear and not layer.weight.requires_grad:
            layer.__class__ = MixedLinear


class _FrozenProduct(torch.autograd.Function):
    """Widens the matrix for each product. The backward pass widens it again, so that no copy of it is kept."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return F.linear(rows, weight.to(rows.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (weight,) = ctx.saved_tensors
        return grad @ weight.to(grad.dtype), None
