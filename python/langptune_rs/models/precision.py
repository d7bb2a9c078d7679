"""The number formats a recipe may compute in."""

import torch

COMPUTE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Dtypes by their name in `engine.precision` and `rlso.precision`."""
