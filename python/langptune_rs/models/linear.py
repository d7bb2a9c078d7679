"""Linear layers whose weights are packed once for many products, as decoding needs them on a CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from langptune_rs import _core
from langptune_rs.models.precision import has_bf16_products

_ROWS = 16
"""oneDNN compiles a kernel for each number of rows and keeps it, so there are only multiples of this many."""


class PackedLinear:
    """One or more linear layers of one input as a single product, in float32 from rows in float32.

    The weights are copied when it is made. In bfloat16 they take half the memory; where the CPU multiplies bfloat16
    numbers, rows are rounded to it too, and otherwise each weight is widened when it is used.
    """

    def __init__(self, layers: Sequence[nn.Module], dtype: torch.dtype):
        """`layers` are linear, or such layers with LoRA's products added by peft; `dtype` is that of the copy."""
        bases = [_base(layer) for layer in layers]
        weights = torch.cat([base.weight.detach() for base in bases]).to(dtype).contiguous()
        self.num_outputs = len(weights)
        self._product = _product(weights)
        self._bias: Tensor | None = None
        if any(base.bias is not None for base in bases):
            biases = [torch.zeros(len(base.weight)) if base.bias is None else base.bias.detach() for base in bases]
            self._bias = torch.cat(biases).float()
        self._adapters: list[tuple[slice, Tensor, Tensor]] = []
        start = 0
        for layer, base in zip(layers, bases, strict=True):
            end = start + len(base.weight)
            self._adapters += [(slice(start, end), down, up) for down, up in _adapters(layer)]
            start = end

    def __call__(self, rows: Tensor) -> Tensor:
        """The product, float32 (rows, outputs), of rows, float32 (rows, inputs) and contiguous."""
        out = self._product(rows)
        if self._bias is not None:
            out += self._bias
        for outputs, down, up in self._adapters:
            out[:, outputs] += (rows @ down.T) @ up.T
        return out


def is_linear(module: object) -> bool:
    """Whether `PackedLinear` knows what the module computes."""
    if isinstance(module, nn.Linear):
        return True
    if not hasattr(module, "lora_A") or not isinstance(getattr(module, "base_layer", None), nn.Linear):
        return False
    layer = cast(Any, module)
    is_plain = not any(layer.use_dora.values()) and not layer.merged and not layer.disable_adapters
    return is_plain and all(isinstance(layer.lora_dropout[name], nn.Identity) for name in layer.active_adapters)


def _base(layer: nn.Module) -> nn.Linear:
    return layer if isinstance(layer, nn.Linear) else cast(nn.Linear, layer.base_layer)


def _adapters(layer: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """LoRA's two matrices, (rank, inputs) and (outputs, rank), with the factor in the second."""
    if isinstance(layer, nn.Linear):
        return []
    lora = cast(Any, layer)
    return [
        (lora.lora_A[name].weight.detach().float(), lora.lora_B[name].weight.detach().float() * lora.scaling[name])
        for name in lora.active_adapters
    ]


def _product(weights: Tensor) -> Callable[[Tensor], Tensor]:
    if weights.dtype == torch.bfloat16 and has_bf16_products():
        packed = torch.ops.mkldnn._reorder_linear_weight(weights)

        def by_torch(rows: Tensor) -> Tensor:
            narrow = F.pad(rows.bfloat16(), (0, 0, 0, -len(rows) % _ROWS))
            product = torch.ops.mkldnn._linear_pointwise(narrow, packed, None, "none", [], "")
            return cast(Tensor, product[: len(rows)].float())

        return by_torch
    is_half = weights.dtype == torch.bfloat16
    matrix = _core.PackedMatrix(weights.view(torch.uint16).numpy() if is_half else weights.float().numpy())
    num_outputs = len(weights)  # so that the function does not keep the weights in memory

    def by_core(rows: Tensor) -> Tensor:
        out = np.empty((len(rows), num_outputs), dtype=np.float32)
        matrix.product(rows.numpy(), out)
        return torch.from_numpy(out)

    return by_core
