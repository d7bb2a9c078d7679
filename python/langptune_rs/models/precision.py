"""The number formats a recipe may compute in."""

from functools import cache
from typing import Literal

import torch

Precision = Literal["auto", "bf16", "fp32"]
"""What a method that is compared trains in; "auto" is bfloat16 where the hardware is faster in it."""

COMPUTE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Dtypes by their name in `engine.precision` and `rlso.precision`."""


@cache
def has_bf16_products() -> bool:
    """Whether this CPU multiplies numbers in bfloat16. Where it does not, torch converts them at every product."""
    capabilities = torch.cpu.get_capabilities()
    is_faster = any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return is_faster and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def is_faster_in_bf16() -> bool:
    """Whether this machine multiplies faster in bfloat16 than in float32."""
    return torch.cuda.is_available() or has_bf16_products()


def trained_in(precision: Precision) -> Literal["bf16", "fp32"]:
    """What a method's `precision` comes to on this machine."""
    if precision == "auto":
        return "bf16" if is_faster_in_bf16() else "fp32"
    return precision


def gradient_dtype(dtype: torch.dtype, trained_dtype: torch.dtype) -> torch.dtype:
    """In which the products of gradients are computed, of weights in `trained_dtype` above others in `dtype`.

    Log-ratios need exact log-probabilities, and so an exact forward pass. A gradient only gives the direction of a
    step, so its products take the shorter `dtype` where the hardware multiplies it faster (docs/log-ratios.md).
    """
    may_round = (dtype, trained_dtype) == (torch.bfloat16, torch.float32)
    return dtype if may_round and is_faster_in_bf16() else trained_dtype
