"""The work of an optimizer step and an estimate of its time, by arithmetic on the recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass

from langptune_rs.config import RunConfig
from langptune_rs.models.shapes import Shape
from langptune_rs.training.planning.memory import (
    bytes_per_number,
    embedder_tokens,
    kv_cache,
    policy_weights,
    prompt_tokens,
    prompts_at_once,
)

SHARE_OF_PEAK = 0.35
"""Share of the GPU's peak arithmetic in passes over many tokens, and of its memory's speed while writing profiles."""
PEAK_TFLOPS, PEAK_FP32_TFLOPS, PEAK_BANDWIDTH = 155.0, 38.7, 768.0
"""TFLOP/s in bfloat16 and float32, and GB/s of memory, of an RTX A6000 (48 GB, the paper's kind), by its data sheet."""


@dataclass(frozen=True)
class Step:
    """The work of one optimizer step over the global batch."""

    phase: str
    tokens_written: int
    tokens_trained: int
    seconds: float


def step_times(
    config: RunConfig,
    policy: Shape,
    embedder: Shape,
    num_processes: int,
    *,
    tflops: float = PEAK_TFLOPS,
    fp32_tflops: float = PEAK_FP32_TFLOPS,
    bandwidth: float = PEAK_BANDWIDTH,
) -> list[Step]:
    """Tokens and estimated seconds of a step in each phase, when every profile and history takes all its tokens.

    A trained token costs 2 operations for each weight it passes forward and 4 more backward. A written token costs 2
    for each weight of the output matrix and 2 for its gradient, twice as many if that matrix trains. A contrastive
    batch larger than one micro-batch is passed forward twice. Writing reads the weights and the key-value cache once
    for each token of a batch. Both run at `SHARE_OF_PEAK` of `tflops` and of `bandwidth` (GB/s), and the forward passes
    of updates in float32 at that share of `fp32_tflops`. Products of gradients are in `engine.precision`.
    """
    flops, speed = tflops * 1e12 * SHARE_OF_PEAK, bandwidth * 1e9 * SHARE_OF_PEAK
    prompt, limit, precision = prompt_tokens(config), config.profile.max_tokens, config.engine.precision

    def seconds_to_write(num_sessions: int, num_samples: int) -> float:
        own = math.ceil(num_sessions / num_processes)
        together = prompts_at_once(config, prompt, num_samples, own)
        cache = kv_cache(policy, together, prompt, num_samples, limit, precision)
        read = limit * (policy.weights * bytes_per_number(precision) + cache) * math.ceil(own / together)
        return read / speed + 2 * policy.weights * own * prompt / flops

    steps = []
    if config.trains_embedder:
        batch = config.contrastive.batch_size
        trained = embedder_tokens(config)
        passes = 6 if math.ceil(trained / num_processes) <= config.contrastive.micro_batch_tokens else 8
        seconds = passes * embedder.weights * trained / num_processes / flops
        if config.trains_on_histories:
            steps.append(Step("history", 0, trained, seconds))
        if config.trains_on_profiles:
            steps.append(Step("contrastive", batch * limit, trained, seconds_to_write(batch, 1) + seconds))
    if config.trains_policy:
        rlso, weights = config.rlso, policy_weights(policy, config)
        written = rlso.batch_size * rlso.num_profiles * limit
        trained = rlso.batch_size * prompt + written
        backward = 4 if config.policy.train == "last-layers" else 2
        passed = weights.trained + (weights.frozen if config.policy.train == "lora" else 0)
        # An output matrix that trains is passed again in the backward pass, since no probabilities are kept.
        output = (4 if config.policy.train_lm_head else 2) * policy.vocabulary * policy.width
        forward_work = (2 * passed * trained + output * written) / num_processes
        gradient_work = (backward * passed * trained + output * written) / num_processes
        exact = flops * (fp32_tflops / tflops if rlso.precision == "fp32" else 1)
        update = forward_work / exact + gradient_work / (flops if precision == "bf16" else exact)
        rollout = seconds_to_write(rlso.batch_size, rlso.num_profiles)
        steps.append(Step("rlso", written // rlso.epochs, trained, rollout / rlso.epochs + update))
    return steps
