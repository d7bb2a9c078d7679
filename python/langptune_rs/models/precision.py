"""The number formats a recipe may compute in."""

from functools import cache

import torch

COMPUTE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Dtypes by their name in `engine.precision` and `rlso.precision`."""


@cache
def has_bf16_products() -> bool:
    """Whether this CPU multiplies numbers in bfloat16. Where it does not, torch converts them at every product."""
    capabilities = torch.cpu.get_capabilities()
    is_faster = any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
    return is_faster and hasattr(torch.ops.mkldnn, "_linear_pointwise")
