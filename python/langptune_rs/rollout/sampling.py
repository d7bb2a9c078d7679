"""Writing profiles: batched decoding that stops every row at its own end-of-turn token.

Sampling uses a temperature and no top-p or top-k, so that the sampler's distribution is the one the trainer
differentiates. Each row draws from its own seeded stream, so a profile does not depend on what else is in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
import torch
from torch import Tensor

from langptune_rs.errors import ContextError
from langptune_rs.models.memory import trim_freed_memory
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.batches import Reader, reading
from langptune_rs.rollout.draws import draws

OnBatch = Callable[[list[list[int]]], object]
"""Called with the token ids of each batch of profiles that is done, one list for each profile."""


@dataclass(frozen=True)
class States:
    """Hidden states at the policy's cut, each (tokens, width), in the policy's precision and in CPU memory."""

    prompts: list[Tensor]
    profiles: list[Tensor]
    """All tokens of a profile but the last, which predicts none."""


@dataclass(frozen=True)
class Profiles:
    """Profiles in the order of their prompts; the samples of one prompt stand next to each other."""

    tokens: list[list[int]]
    """Token ids, with the end-of-turn token where there is one."""
    texts: list[str]
    finished: np.ndarray
    """bool (n,): the profile ended with an end-of-turn token within the limit."""
    states: States | None = None
    """Hidden states after the policy's frozen layers, if they were asked for."""

    def __len__(self) -> int:
        return len(self.tokens)

    @staticmethod
    def joined(parts: Sequence[Profiles]) -> Profiles:
        """The profiles of all parts, one part after the other, without states."""
        tokens = [row for part in parts for row in part.tokens]
        texts = [text for part in parts for text in part.texts]
        return Profiles(tokens, texts, np.concatenate([part.finished for part in parts]))

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
    keep_states: bool = False,
    kept: Sequence[list[list[int]]] = (),
    on_batch: OnBatch | None = None,
    on_token: Callable[[], object] = lambda: None,
    reader: Reader | None = None,
) -> Profiles:
    """Write one profile for each prompt at each of `temperatures`; 0 decodes greedily.

    Sampling needs `seeds`, one integer for each prompt: sample s of a prompt draws from stream (seed, s). A batch holds
    as many rows as `token_budget` allows at their final length. Rows that have ended leave it. `on_batch` receives the
    token ids of each finished batch, one list for each profile. `kept` are such batches of an interrupted call with the
    same arguments, in order; they are not written again. With `keep_states` the profiles carry hidden states, but
    batches passed as `kept` carry none.

    `on_token` is called before each token of a batch; what it raises ends the writing. `reader` is an open one of the
    policy, for those who write often by the same weights.

    Raises `ContextError` when a prompt and `max_tokens` do not fit the model's context.
    """
    check_context(policy, prompts, max_tokens)
    if any(temperatures) and seeds is None:
        raise ValueError("sampling needs a seed for each prompt: pass `seeds`, or temperature 0 to decode greedily")
    num_samples = len(temperatures)
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    tokens: list[list[int]] = [[] for _ in range(len(prompts) * num_samples)]
    no_states = torch.empty(0)
    states = States([no_states] * len(prompts), [no_states] * len(tokens)) if keep_states else None
    batches = _token_budget_batches(order, prompts, max_tokens, num_samples, token_budget)
    with nullcontext(reader) if reader else reading(policy) as opened:
        for batch, before in zip_longest(batches, kept):
            rows = [i * num_samples + s for i in batch for s in range(num_samples)]
            written = before
            if before is None:
                streams = [(0 if seeds is None else seeds[i], s) for i in batch for s in range(num_samples)]
                batch_prompts = [prompts[i] for i in batch]
                written, *at_cut = _decode_batch(
                    opened, policy, batch_prompts, max_tokens, temperatures, streams, keep_states, on_token
                )
                if on_batch:
                    on_batch(written)
                if states:
                    _scatter(at_cut[0], batch, states.prompts)
                    _scatter(at_cut[1], rows, states.profiles)
            _scatter(written, rows, tokens)
    del opened  # with its copy of the weights
    trim_freed_memory()
    finished = np.array([bool(row) and row[-1] in policy.eos_ids for row in tokens], dtype=bool)
    return Profiles(tokens, [policy.decode(row) for row in tokens], finished, states)


def _scatter(values: Sequence[Any], places: Sequence[int], into: list[Any]) -> None:
    """Set `into[place]` to the value of each place."""
    for value, place in zip(values, places, strict=True):
        into[place] = value


def check_context(policy: Policy, prompts: Sequence[Sequence[int]], max_tokens: int) -> None:
    """Raise `ContextError` when the longest of the prompts and `max_tokens` do not fit the model's context."""
    longest = max((len(prompt) for prompt in prompts), default=0)
    room = policy.max_context - longest
    if max_tokens <= room:
        return
    problem = (
        f"profile.max_tokens = {max_tokens} and the longest prompt ({longest} tokens) need {longest + max_tokens} "
        f"tokens, but {policy.config.model!r} has a context of {policy.max_context}."
    )
    if room > 0:
        raise ContextError(f"{problem} Set profile.max_tokens to at most {room}.")
    raise ContextError(
        f"{problem} The prompt alone leaves no room for a profile. Give shorter histories, which "
        "data.max_history_tokens bounds when the data is prepared, or choose a policy.model with a longer context."
    )


def _token_budget_batches(
    order: list[int], prompts: Sequence[Sequence[int]], max_tokens: int, num_samples: int, token_budget: int
) -> list[list[int]]:
    """`order`, sorted by prompt length, in batches within the budget, padding included; at least one prompt each."""
    batches: list[list[int]] = []
    for i in order:
        row_tokens = len(prompts[i]) + max_tokens * num_samples
        if not batches or (len(batches[-1]) + 1) * row_tokens > token_budget:
            batches.append([])
        batches[-1].append(i)
    return batches


@torch.no_grad()
def _decode_batch(
    reader: Reader,
    policy: Policy,
    prompts: list[Sequence[int]],
    max_tokens: int,
    temperatures: Sequence[float],
    seeds: Sequence[tuple[int, int]],
    keep_states: bool,
    on_token: Callable[[], object],
) -> tuple[list[list[int]], list[Tensor], list[Tensor]]:
    """Decode one batch; rows that have ended leave it.

    Returns token ids, and with `keep_states` the states at the cut (tokens, width) of each prompt and of each profile
    without its last token, which is never read.
    """
    device, num_samples = policy.model.device, len(temperatures)
    batch = reader.batch(prompts, num_samples, max_tokens)
    prompt_states, logits = batch.read(keep_states=keep_states)
    logits = logits.repeat_interleave(num_samples, 0)
    streams = draws(seeds, device)
    row_temperatures = torch.tensor(temperatures, dtype=torch.float32, device=device).repeat(len(prompts))
    positions = torch.tensor([len(prompt) for prompt in prompts], device=device).repeat_interleave(num_samples)
    tokens: list[list[int]] = [[] for _ in range(len(prompts) * num_samples)]
    states: list[list[Tensor]] = [[] for _ in tokens]
    rows = np.arange(len(tokens))
    for step in range(max_tokens):
        on_token()
        chosen = streams.choose(logits, row_temperatures, rows, step)
        ids = chosen.tolist()
        for row, token in zip(rows, ids, strict=True):
            tokens[row].append(token)
        unfinished = ~np.isin(ids, list(policy.eos_ids))
        if not unfinished.any() or step + 1 == max_tokens:
            break
        if not unfinished.all():
            batch.keep(unfinished)
            keep = torch.from_numpy(np.flatnonzero(unfinished)).to(device)
            row_temperatures, chosen, positions = row_temperatures[keep], chosen[keep], positions[keep]
            rows = rows[unfinished]
        at_cut, logits = batch.write(step, chosen, positions + step)
        if keep_states:
            for row, state in zip(rows, at_cut.cpu(), strict=True):
                states[row].append(state)
    if not keep_states:
        return tokens, [], []
    return tokens, prompt_states, [torch.stack(row) if row else prompt_states[0][:0] for row in states]
