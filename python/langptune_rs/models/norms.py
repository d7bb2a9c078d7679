"""What a root mean square norm of transformers computes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class RootMeanSquareNorm:
    """Rows over their root mean square, times weights."""

    offset: float
    """Added to the module's weights: some models multiply by their weights plus 1."""
    epsilon: float
    """Added to the mean square."""

    @classmethod
    @torch.no_grad()
    def of(cls, module: nn.Module) -> RootMeanSquareNorm | None:
        """What a module computes, if it is such a norm. The norm of ones shows what its weights mean."""
        weight = getattr(module, "weight", None)
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not isinstance(weight, Tensor) or not isinstance(epsilon, float) or isinstance(module, nn.LayerNorm):
            return None
        shown = module(torch.ones(1, len(weight), dtype=weight.dtype))[0].float()
        error = {offset: float((weight.float() + offset - shown).abs().max()) for offset in (0.0, 1.0)}
        return cls(min(error, key=lambda offset: error[offset]), epsilon)
