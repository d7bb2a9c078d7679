"""Linear layers that compute in one precision, keep frozen matrices in another, and compute gradients in a third."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MixedLinear(nn.Linear):
    """A linear layer that computes in the precision of its input, whatever that of its frozen weights is."""

    gradient_dtype: torch.dtype | None = None
    """In which the two products of the backward pass are computed; None for that of the input.

    Their sums are rounded to it too. Gradients keep the precision of what they are of.
    """

    def forward(self, rows: Tensor) -> Tensor:
        """The product (..., out) of rows (..., in)."""
        gradient_dtype = self.gradient_dtype or rows.dtype
        if rows.dtype == self.weight.dtype == gradient_dtype:
            return super().forward(rows)
        product = cast(Tensor, _MixedProduct.apply(rows, self.weight, gradient_dtype))
        return product if self.bias is None else product + self.bias


def widen(module: nn.Module, dtype: torch.dtype, gradient_dtype: torch.dtype | None = None) -> None:
    """Let `module` compute in `dtype`, and the products of linear layers' gradients in `gradient_dtype`.

    Frozen linear layers widen their matrix for each product. All else is kept in `dtype`: it is small, but for experts
    that are stacked in one tensor.
    """
    for part in module.modules():
        is_linear = type(part) in (nn.Linear, MixedLinear)
        keeps_weights = is_linear and not part.weight.requires_grad and part.weight.dtype != dtype
        if is_linear and (keeps_weights or gradient_dtype not in (None, dtype)):
            part.__class__ = MixedLinear
            part.gradient_dtype = gradient_dtype  # type: ignore[assignment]  # torch takes modules to be meant
        if not keeps_weights:
            for parameter in part.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


class _MixedProduct(torch.autograd.Function):
    """Widens the matrix for each product, and keeps it as it is."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, gradient_dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(rows if weight.requires_grad else None, weight)
        ctx.gradient_dtype = gradient_dtype
        return F.linear(rows, weight.to(rows.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight = ctx.saved_tensors
        short = grad.to(ctx.gradient_dtype)
        grad_rows = grad_weight = None
        if ctx.needs_input_grad[0]:
            grad_rows = (short @ weight.to(short.dtype)).to(grad.dtype)
        if ctx.needs_input_grad[1]:
            by_row = short.flatten(0, -2).T @ rows.to(short.dtype).flatten(0, -2)
            grad_weight = by_row.to(weight.dtype)
        return grad_rows, grad_weight, None
