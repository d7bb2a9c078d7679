"""A rollout batch as micro-batches without padding: packed sessions, where all profiles of a prompt share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from langptune_rs.models.attention import additive, causal_attention, for_heads, masked_attention, missing_tokens
from langptune_rs.models.policy import Policy
from langptune_rs.packing import MicroBatch, pack_sequences
from langptune_rs.rollout.sampling import Profiles


@dataclass(frozen=True)
class RolloutBatch:
    """A few whole sessions in one row: a prompt, its profiles, the next prompt.

    A profile sees the prompt and itself, and its positions continue those of the prompt. So each profile is scored as
    if it were the only one behind the prompt. The last token of a profile predicts nothing and is left out. The row is
    padded with tokens that nothing sees.
    """

    states: Tensor
    """(1, tokens, width): hidden states at the policy's cut, in the memory of the CPU until they are used."""
    position_ids: Tensor
    """int64 (1, tokens)."""
    layout: SharedPrompts
    predictors: Tensor
    """int64 (profile tokens,): the place in the row that predicts each profile token."""
    tokens: Tensor
    """int64 (profile tokens,)."""
    owners: Tensor
    """int64 (profile tokens,): which profile of the batch each token belongs to, session-major."""
    sessions: NDArray[np.int64]
    """int64 (sessions,): which of the rollout batch's sessions these are."""
    num_profiles: int
    """Profiles of each session."""


def pack_rollout(
    policy: Policy,
    prompts: Sequence[Sequence[int]],
    profiles: Profiles,
    num_profiles: int,
    capacity: int,
    *,
    num_batches: int = 1,
) -> list[RolloutBatch]:
    """Micro-batches of at most `capacity` tokens, or of the longest session's if that is longer; each session once.

    `profiles` holds `num_profiles` for each prompt, with their states. There are at least `num_batches` micro-batches,
    so that all ranks can have equally many; this needs at least as many sessions.
    """
    assert profiles.states is not None, "profiles are written with keep_states=True"
    num_sessions = len(prompts)
    lengths = [len(prompt) for prompt in prompts] + [len(tokens) - 1 for tokens in profiles.tokens]
    prefixes = np.concatenate([np.full(num_sessions, -1), np.repeat(np.arange(num_sessions), num_profiles)])
    whole = np.array(lengths[:num_sessions]) + np.array(lengths[num_sessions:]).reshape(num_sessions, -1).sum(1)
    packing = pack_sequences(lengths, max(capacity, int(whole.max())), prefixes=prefixes)
    parts = packing.balance(num_batches) if len(packing) < num_batches else [packing]
    states = [*profiles.states.prompts, *profiles.states.profiles]
    tokens = np.fromiter(chain(*prompts, *(profile[:-1] for profile in profiles.tokens)), np.int64, sum(lengths))
    batches = [micro_batch for part in parts for micro_batch in part.collate(tokens)]
    return [_rollout_batch(policy, batch, profiles, states, num_sessions) for batch in batches]


def _rollout_batch(
    policy: Policy, packed: MicroBatch, profiles: Profiles, states: Sequence[Tensor], num_sessions: int
) -> RolloutBatch:
    is_prompt = packed.prefixes < 0
    sessions = packed.sequences[is_prompt]
    written = packed.sequences[~is_prompt] - num_sessions
    num_profiles = len(written) // len(sessions)
    starts, ends = packed.cu_seqlens[:-1], packed.cu_seqlens[1:]
    first = ends[packed.prefixes[~is_prompt]] - 1
    predictors = [
        np.append(before, np.arange(start, end))
        for before, start, end in zip(first, starts[~is_prompt], ends[~is_prompt], strict=True)
    ]
    tokens = [token for profile in written for token in profiles.tokens[profile]]
    owners = np.repeat(np.arange(len(written)), [len(rows) for rows in predictors])
    device, last_layer = policy.model.device, len(policy.decoder.layers) - 1
    row = torch.cat([states[i] for i in packed.sequences])
    num_missing = missing_tokens(len(row))
    lengths = np.diff(packed.cu_seqlens)
    spans = [
        (prompt, group.tolist())
        for prompt, group in zip(
            lengths[is_prompt].tolist(), lengths[~is_prompt].reshape(len(sessions), -1), strict=True
        )
    ]
    return RolloutBatch(
        states=F.pad(row, (0, 0, 0, num_missing))[None],
        position_ids=F.pad(torch.from_numpy(packed.position_ids), (0, num_missing)).to(device)[None],
        layout=SharedPrompts(spans, last_layer, torch.empty(0, dtype=policy.trained_dtype, device=device)),
        predictors=torch.from_numpy(np.concatenate(predictors)).to(device),
        tokens=torch.tensor(tokens, device=device),
        owners=torch.from_numpy(owners).to(device),
        sessions=sessions,
        num_profiles=num_profiles,
    )


class SharedPrompts:
    """Layout of sessions in one row: each prompt sees itself, each profile its prompt and itself.

    Tokens behind the last session see nothing. In the last layer only each prompt's final token and the profiles are
    computed; nothing reads the rest.
    """

    def __init__(self, sessions: Sequence[tuple[int, Sequence[int]]], last_layer: int, like: Tensor):
        """`sessions` holds the lengths of each prompt and its profiles; `like` has the queries' dtype and device."""
        self._last_layer = last_layer
        self._sessions = [(prompt, _tail_mask(prompt, profiles, like)) for prompt, profiles in sessions]
        self._masks: list[tuple[Tensor, Tensor]] = []
        """Two masks for each session: for its prompt's last token with the profiles, and for only the profiles."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """See `Layout.attend`."""
        if not self._masks:
            self._masks = [
                (for_heads(mask, query, key), for_heads(mask[:, 1:], query, key)) for _, mask in self._sessions
            ]
        parts: list[Tensor] = []
        start = 0
        for (prompt, mask), (tail_mask, profile_mask) in zip(self._sessions, self._masks, strict=True):
            end = start + mask.shape[2]
            q, k, v = (states[:, :, start:end] for states in (query, key, value))
            if layer == self._last_layer:
                parts.append(torch.zeros_like(q[:, :, : prompt - 1]))
                parts.append(masked_attention(q[:, :, prompt - 1 :], k, v, tail_mask, scaling))
            else:
                parts.append(causal_attention(q[:, :, :prompt], k[:, :, :prompt], v[:, :, :prompt], scaling))
                if end > start + prompt:
                    parts.append(masked_attention(q[:, :, prompt:], k, v, profile_mask, scaling))
            start = end
        return torch.cat([*parts, torch.zeros_like(query[:, :, start:])], 2).transpose(1, 2)


def _tail_mask(prompt: int, profiles: Sequence[int], like: Tensor) -> Tensor:
    """Mask (1, 1 + profile tokens, prompt + profile tokens) of a prompt's last token and its profiles."""
    segments = torch.repeat_interleave(torch.tensor([prompt, *profiles])).to(like.device)
    visible = shared_prompt_mask(segments)[prompt - 1 :]
    return additive(visible, like.dtype)[None]


def shared_prompt_mask(segments: Tensor) -> Tensor:
    """Causal mask, bool (queries, keys), of tokens whose `segments` (tokens,) are 0 for the prompt, g for profile g."""
    query, key = segments[:, None], segments[None, :]
    causal = torch.ones(len(segments), len(segments), dtype=torch.bool, device=segments.device).tril()
    return causal & ((key == 0) | (key == query))
