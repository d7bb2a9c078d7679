"""Matrix products and attention of the core's decoding kernels, beside torch's product in float32.

    python benches/decoding.py

The shapes are those of SmolLM2-135M reading 2,048 tokens of prompts. Times are the best of `--rounds`, by turns.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from functools import partial

from langptune_rs.distributed.threads import sleep_while_waiting

sleep_while_waiting(os.environ)

import numpy as np  # noqa: E402  # after the variables that OpenMP reads
import torch  # noqa: E402
from hard_cases import least_times  # noqa: E402

from langptune_rs import _core  # noqa: E402
from langptune_rs.models.memory import keep_freed_memory  # noqa: E402

TOKENS = 2048
SHAPES = {"queries, keys, values": (576, 960), "output": (576, 576), "gate and up": (576, 3072), "down": (1536, 576)}
"""(inputs, outputs) of a layer's products."""
HEADS, KV_HEADS, HEAD_DIM, PROMPT = 9, 3, 64, 832


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    least = partial(least_times, rounds=options.rounds, clock=time.perf_counter)
    keep_freed_memory()
    print("| work | core, GFLOP/s | torch, GFLOP/s | core / torch |\n|---|---:|---:|---:|")
    for name, (num_inputs, num_outputs) in SHAPES.items():
        flops = 2 * TOKENS * num_inputs * num_outputs
        core, by_torch = (flops / s / 1e9 for s in least(*products(num_inputs, num_outputs)))
        print(f"| {name} | {core:.0f} | {by_torch:.0f} | {core / by_torch:.2f} |", flush=True)
    pairs = 4 * PROMPT * (PROMPT + 1) // 2
    (seconds,) = least(attention(4))
    print(f"| attention of 4 prompts of {PROMPT} tokens | {4 * HEADS * HEAD_DIM * pairs / seconds / 1e9:.0f} | | |")


def products(num_inputs: int, num_outputs: int) -> list[Callable[[], object]]:
    """The core's product with weights in bfloat16, and torch's with the same in float32."""
    weights = torch.randn(num_outputs, num_inputs).bfloat16()
    matrix, wide = _core.PackedMatrix(weights.view(torch.uint16).numpy()), weights.float()
    rows, out = torch.randn(TOKENS, num_inputs), np.empty((TOKENS, num_outputs), np.float32)
    return [lambda: matrix.product(rows.numpy(), out), lambda: torch.nn.functional.linear(rows, wide)]


def attention(num_prompts: int) -> Callable[[], object]:
    """All tokens of some prompts, each seeing what is before it."""
    num_tokens = num_prompts * PROMPT
    rows = np.random.default_rng(0).standard_normal((num_tokens, (HEADS + 2 * KV_HEADS) * HEAD_DIM), dtype=np.float32)
    cosines, sines = np.ones((num_tokens, HEAD_DIM), np.float32), np.zeros((num_tokens, HEAD_DIM), np.float32)
    segments, out = np.repeat(np.arange(num_prompts), PROMPT), np.empty((num_tokens, HEADS * HEAD_DIM), np.float32)

    def attend() -> None:
        lengths: list[int] = [PROMPT] * num_prompts
        cache = _core.KvCache(1, HEADS, KV_HEADS, HEAD_DIM, lengths, [None] * num_prompts, True)
        cache.attend(0, rows, segments, cosines, sines, None, np.arange(num_tokens), HEAD_DIM**-0.5, out)

    return attend


if __name__ == "__main__":
    main()
