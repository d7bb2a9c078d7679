"""A rollout batch as micro-batches without padding: packed sessions, where all profiles of a prompt share it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from langptune_rs.models.attention import missing_tokens
from langptune_rs.models.policy import Policy
from langptune_rs.models.shared_prompts import SharedPrompts
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

    def without(self, profiles_BG: Tensor) -> RolloutBatch:
        """The batch with zeros for the states of these profiles, bool (sessions, profiles), and all else in its place.

        A session that loses all its profiles loses its prompt's states too.
        """
        lost = profiles_BG.flatten()[self.owners]
        is_last_of_prompt = F.pad(self.owners[1:] != self.owners[:-1], (1, 0), value=True)
        states = self.states.clone()
        states[0, self.predictors[lost & ~is_last_of_prompt].to(states.device)] = 0
        sessions = self.owners // self.num_profiles
        end = 0
        for session, is_lost in enumerate(profiles_BG.all(1).tolist()):
            start, end = end, int(self.predictors[sessions == session].max()) + 1
            if is_lost:
                states[0, start:end] = 0
        return replace(self, states=states)


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
