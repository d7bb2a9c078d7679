"""Writing profiles: batched decoding that stops every row at its own end-of-turn token.

Sampling is temperature only, with no top-p or top-k, so that the sampler's distribution is the one the trainer
differentiates. Each row draws from its own seeded stream: what a user is told does not depend on who else is in the
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from langptune_rs.errors import ModelError
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.cache import make_cache

FULL_ENOUGH = 0.8
"""Rows that have ended leave the batch once less than this share is still going: leaving costs a copy of the cache."""


@dataclass(frozen=True)
class Profiles:
    """Profiles in the order of their prompts; the samples of one prompt stand next to each other."""

    tokens: list[list[int]]
    """Token ids, with the end-of-turn token where there is one."""
    texts: list[str]
    finished: np.ndarray
    """bool (n,): the profile ended with an end-of-turn token within the limit."""

    def __len__(self) -> int:
        return len(self.tokens)


def write_profiles(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperature: float,
    seeds: Sequence[int] | None = None,
    num_samples: int = 1,
    token_budget: int = 32768,
    on_progress: Callable[[int], object] | None = None,
) -> Profiles:
    """Write `num_samples` profiles for each prompt.

    `temperature` 0 decodes greedily; otherwise `seeds` holds one integer for each prompt, and sample s of a prompt
    reads stream (seed, s). A batch holds as many rows as `token_budget` allows at their final length; rows that have
    ended leave it. `on_progress` is told how many profiles have just been finished.

    Raises `ModelError` when a prompt and `max_tokens` do not fit the model's context.
    """
    check_context(policy, prompts, max_tokens)
    if temperature > 0 and seeds is None:
        raise ValueError("sampling needs a seed for each prompt: pass `seeds`, or temperature = 0 to decode greedily")
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    tokens: list[list[int]] = [[] for _ in range(len(prompts) * num_samples)]
    for batch in _token_budget_batches(order, prompts, max_tokens, num_samples, token_budget):
        uniforms = None
        if temperature > 0:
            uniforms = np.stack([_stream(seeds[i], s, max_tokens) for i in batch for s in range(num_samples)])
        written = _decode_batch(policy, [prompts[i] for i in batch], num_samples, max_tokens, temperature, uniforms)
        for row, i in enumerate(batch):
            tokens[i * num_samples : (i + 1) * num_samples] = written[row * num_samples : (row + 1) * num_samples]
        if on_progress:
            on_progress(len(batch) * num_samples)
    finished = np.array([bool(row) and row[-1] in policy.eos_ids for row in tokens], dtype=bool)
    return Profiles(tokens, [policy.decode(row) for row in tokens], finished)


def _stream(seed: int, sample: int, length: int) -> np.ndarray:
    """The uniform numbers that decide one row's tokens, float64 (length,)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, sample]))).random(length)


def check_context(policy: Policy, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
    """Raise `ModelError` when the longest of the prompts and `max_tokens` do not fit the model's context."""
    longest = max((len(prompt) for prompt in prompts), default=0)
    if longest + max_tokens > policy.max_context:
        raise ModelError(
            f"profile.max_tokens = {max_tokens} and the longest prompt ({longest} tokens) need {longest + max_tokens} "
            f"tokens, but {policy.config.model!r} has a context of {policy.max_context}. "
            f"Set profile.max_tokens to at most {policy.max_context - longest}."
        )


def _token_budget_batches(
    order: list[int], prompts: Sequence[Sequence[int]], max_tokens: int, num_samples: int, token_budget: int
) -> list[list[int]]:
    """Cut `order`, sorted by prompt length, so that a padded batch keeps within the budget (one prompt at least)."""
    batches: list[list[int]] = []
    for i in order:
        row_tokens = (len(prompts[i]) + max_tokens) * num_samples
        if not batches or (len(batches[-1]) + 1) * row_tokens > token_budget:
            batches.append([])
        batches[-1].append(i)
    return batches


@torch.inference_mode()
def _decode_batch(
    policy: Policy,
    prompts: list[Sequence[int]],
    num_samples: int,
    max_tokens: int,
    temperature: float,
    uniforms: np.ndarray | None,
) -> list[list[int]]:
    """Decode one batch; each prompt is read once for all its samples."""
    model, device = policy.model, policy.model.device
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = make_cache(model.config, room=max_tokens)

    def next_logits(ids: Tensor) -> Tensor:
        """Logits (rows, vocabulary) behind the last of `ids`, with the mask and positions of now."""
        return model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    logits = next_logits(input_ids)
    if num_samples > 1:
        cache.batch_repeat_interleave(num_samples)
        mask, positions, logits = (x.repeat_interleave(num_samples, 0) for x in (mask, positions, logits))
    positions = positions[:, -1:]
    tokens: list[list[int]] = [[] for _ in range(len(prompts) * num_samples)]
    rows = np.arange(len(tokens))
    going = np.ones(len(rows), dtype=bool)
    for step in range(max_tokens):
        drawn = None if uniforms is None else torch.from_numpy(uniforms[rows, step]).to(device)
        chosen = _choose(logits, temperature, drawn)
        ids = chosen.tolist()
        for j in np.flatnonzero(going):
            tokens[rows[j]].append(ids[j])
        going &= ~np.isin(ids, list(policy.eos_ids))
        if not going.any() or step + 1 == max_tokens:
            break
        if going.mean() < FULL_ENOUGH:
            keep = torch.from_numpy(np.flatnonzero(going)).to(device)
            cache.batch_select_indices(keep)
            mask, positions, chosen = mask[keep], positions[keep], chosen[keep]
            rows, going = rows[going], going[going]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions + 1
        logits = next_logits(chosen[:, None])
    return tokens


def _choose(logits: Tensor, temperature: float, uniforms: Tensor | None) -> Tensor:
    """The next token of each row, int64 (rows,), from logits (rows, vocabulary).

    Greedy when `uniforms` is None, else by inverting the cumulative distribution at each row's own uniform number.
    """
    if uniforms is None:
        return logits.argmax(-1)
    scaled = logits.float() / temperature
    cumulative = (scaled - scaled.amax(-1, keepdim=True)).exp_().cumsum(-1)
    threshold = uniforms.to(cumulative.dtype)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, threshold, right=True).squeeze(1).clamp(max=logits.shape[-1] - 1)
