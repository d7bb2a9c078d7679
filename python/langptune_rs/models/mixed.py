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


def widen(module: nn.Module, dtype: torch.dtype) -> None:
    """Let `module` compute in `dtype`.

    Frozen linear layers widen their matrix for each product. All else is kept in `dtype`: it is small, but for experts
    that are stacked in one tensor.
    """
    for part in module.modules():
        if type(part) is nn.Linear and not part.weight.requires_grad and part.weight.dtype != dtype:
            part.__class__ = MixedLinear
        elif not isinstance(part, MixedLinear):
            for parameter in part.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


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
