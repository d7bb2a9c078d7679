"""Norms and gated products that keep less for the backward pass than autograd does, in what trains on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from langptune_rs.models.norms import RootMeanSquareNorm


def make_lean(layer: nn.Module) -> None:
    """Replace the forward passes of a layer's norms and of its feed-forward network, which compute the same as before.

    The layer must be one that `FusedDecoder` knows.
    """
    for module in list(layer.modules()):
        norm = RootMeanSquareNorm.of(module)
        if norm is not None:
            _extend(module, _LeanNorm)
            module.lean_norm = norm  # type: ignore[assignment]  # torch takes modules and tensors to be meant
        elif {"gate_proj", "up_proj", "down_proj", "act_fn"} <= {name for name, _ in module.named_children()}:
            _extend(module, _LeanFeedForward)


def _extend(module: nn.Module, first: type) -> None:
    module.__class__ = type(f"Lean{type(module).__name__}", (first, type(module)), {})


class _LeanNorm:
    lean_norm: RootMeanSquareNorm
    weight: Tensor

    def forward(self, rows: Tensor) -> Tensor:
        return cast(Tensor, _Normalize.apply(rows, self.weight, self.lean_norm))


class _LeanFeedForward:
    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module
    act_fn: nn.Module

    def forward(self, rows: Tensor) -> Tensor:
        gated = _GatedProduct.apply(self.gate_proj(rows), self.up_proj(rows), self.act_fn)
        return cast(Tensor, self.down_proj(gated))


class _Normalize(torch.autograd.Function):
    """Keeps the rows and one number for each, and computes the normalised rows again."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, norm: RootMeanSquareNorm) -> Tensor:
        inverse = rows.square().mean(-1, keepdim=True).add_(norm.epsilon).rsqrt_()
        ctx.save_for_backward(rows, weight, inverse)
        ctx.offset = norm.offset
        return (rows * inverse).mul_(weight + norm.offset)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        rows, weight, inverse = ctx.saved_tensors
        normed = rows * inverse
        grad_weight = (grad * normed).flatten(0, -2).sum(0) if ctx.needs_input_grad[1] else None
        if not ctx.needs_input_grad[0]:
            return None, grad_weight, None
        grad_normed = grad * (weight + ctx.offset)
        along = (grad_normed * normed).mean(-1, keepdim=True)
        return grad_normed.addcmul_(normed, along, value=-1).mul_(inverse), grad_weight, None


class _GatedProduct(torch.autograd.Function):
    """Keeps both factors, and computes the activation of the first again."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return activation(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        gate, up = ctx.saved_tensors
        with torch.enable_grad():
            gate = gate.detach().requires_grad_()
            activated = ctx.activation(gate)
        (grad_gate,) = torch.autograd.grad(activated, gate, grad * up)
        return grad_gate, grad * activated.detach(), None
