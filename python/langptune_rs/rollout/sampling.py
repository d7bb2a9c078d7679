"""Writing profiles: batched decoding that stops every row at its own end-of-turn token.

Sampling is temperature only, with no top-p or top-k, so that the sampler's distribution is the one the trainer
differentiates. Each row draws from its own seeded stream: what a user is told does not depend on who else is in the
batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

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

    def take(self, rows: np.ndarray) -> Profiles:
        """The profiles at `rows`, in that order."""
        return Profiles([self.tokens[i] for i in rows], [self.texts[i] for i in rows], self.finished[rows])


def write_profiles(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    *,
    max_tokens: int,
    temperatures: Sequence[float],
    seeds: Sequence[int] | None = None,
    token_budget: int = 32768,
    kept: Sequence[list[list[int]]] = (),
    on_batch: Callable[[list[list[int]]], object] | None = None,
) -> Profiles:
    """Write one profile for each prompt at each of `temperatures`; 0 decodes greedily.

    Sampling needs `seeds`, one integer for each prompt: sample s of a prompt reads stream (seed, s). A batch holds as
    many rows as `token_budget` allows at their final length; rows that have ended leave it. `on_batch` is given the
    token ids of each batch when it is done, one list a profile. What it was given by an earlier call with the same
    arguments is not written again when it is passed as `kept`.

    Raises `ModelError` when a prompt and `max_tokens` do not fit the model's context.
    """
    check_context(policy, prompts, max_tokens)
    if any(temperatures) and seeds is None:
        raise ValueError("sampling needs a seed for each prompt: pass `seeds`, or temperature 0 to decode greedily")
    each = len(temperatures)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    tokens: list[list[int]] = [[] for _ in range(len(prompts) * each)]
    batches = _token_budget_batches(order, prompts, max_tokens, each, token_budget)
    for batch, before in zip_longest(batches, kept):
        written = before
        if before is None:
            uniforms = np.zeros((len(batch) * each, max_tokens))
            if any(temperatures):
                uniforms = np.stack([_stream(seeds[i], s, max_tokens) for i in batch for s in range(each)])
            written = _decode_batch(policy, [prompts[i] for i in batch], max_tokens, temperatures, uniforms)
            if on_batch:
                on_batch(written)
        for row, i in enumerate(batch):
            tokens[i * each : (i + 1) * each] = written[row * each : (row + 1) * each]
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
    max_tokens: int,
    temperatures: Sequence[float],
    uniforms: np.ndarray,
) -> list[list[int]]:
    """Decode one batch. What all prompts begin with is read once, and each prompt once for all its samples."""
    model, device = policy.model, policy.model.device
    cache = make_cache(model.config, room=max_tokens)

    def next_logits(ids: Tensor, mask: Tensor) -> Tensor:
        """Logits (rows, vocabulary) behind the last of `ids`; `mask` (rows, tokens) covers what is cached and `ids`."""
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]

    width = max(len(prompt) for prompt in prompts)
    shared = _num_shared_tokens(prompts)
    padding = [width - len(prompt) for prompt in prompts]
    ids = torch.tensor([[0] * n + list(p[shared:]) for n, p in zip(padding, prompts, strict=True)], device=device)
    mask = torch.tensor([[1] * shared + [0] * n + [1] * (width - shared - n) for n in padding], device=device)
    if shared:
        next_logits(torch.tensor([list(prompts[0][:shared])], device=device), mask[:1, :shared])
        cache.batch_repeat_interleave(len(prompts))
    logits = next_logits(ids, mask)
    each = len(temperatures)
    if each > 1:
        cache.batch_repeat_interleave(each)
        mask, logits = mask.repeat_interleave(each, 0), logits.repeat_interleave(each, 0)
    heat = torch.tensor(temperatures, device=device).repeat(len(prompts))
    draws = torch.from_numpy(uniforms).to(device)
    tokens: list[list[int]] = [[] for _ in range(len(prompts) * each)]
    rows = np.arange(len(tokens))
    going = np.ones(len(rows), dtype=bool)
    for step in range(max_tokens):
        chosen = _choose(logits, heat, draws[:, step])
        ids = chosen.tolist()
        for j in np.flatnonzero(going):
            tokens[rows[j]].append(ids[j])
        going &= ~np.isin(ids, list(policy.eos_ids))
        if not going.any() or step + 1 == max_tokens:
            break
        if going.mean() < FULL_ENOUGH:
            keep = torch.from_numpy(np.flatnonzero(going)).to(device)
            cache.batch_select_indices(keep)
            mask, heat, draws, chosen = mask[keep], heat[keep], draws[keep], chosen[keep]
            rows, going = rows[going], going[going]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        logits = next_logits(chosen[:, None], mask)
    return tokens


def _num_shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with; each keeps one of its own, and a prompt alone shares none."""
    if len(prompts) == 1:
        return 0
    first, last = min(prompts), max(prompts)  # whatever these two begin with, all between them do too
    differs = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return min(next(differs, len(first)), min(map(len, prompts)) - 1)


def _choose(logits: Tensor, temperatures: Tensor, uniforms: Tensor) -> Tensor:
    """The next token of each row, int64 (rows,), from logits (rows, vocabulary).

    Greedy where the row's temperature is 0, else by inverting the cumulative distribution at its uniform number.
    """
    chosen = logits.argmax(-1)
    hot = temperatures.nonzero().squeeze(1)
    if len(hot):
        scaled = logits[hot].float() / temperatures[hot, None]
        cumulative = (scaled - scaled.amax(-1, keepdim=True)).exp_().cumsum(-1)
        total = cumulative[:, -1:]
        # Rounding may carry the product up to the total itself, beyond every token.
        threshold = torch.minimum(uniforms[hot, None].to(total.dtype) * total, total.nextafter(torch.zeros_like(total)))
        chosen[hot] = torch.searchsorted(cumulative, threshold, right=True).squeeze(1)
    return chosen
