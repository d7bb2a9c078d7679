"""Attention of packed sessions in which all profiles of a prompt share it: the layout of a policy step."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langptune_rs.models.attention import additive, causal_attention, for_heads, masked_attention


class SharedPrompts:
    """Layout of sessions in one row: each prompt sees itself, each profile its prompt and itself.

    Tokens behind the last session see nothing. In the last layer only each prompt's final token and the profiles are
    computed; nothing reads the rest.
    """

    def __init__(self, sessions: Sequence[tuple[int, Sequence[int]]], last_layer: int, like: Tensor):
        """`sessions` holds the lengths of each prompt and its profiles; `like` has the model's dtype and device."""
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
        lengths = [mask.shape[2] for _, mask in self._sessions]
        lengths.append(query.shape[2] - sum(lengths))
        parts: list[Tensor] = []
        # Splits, since the gradient of a slice is as long as the whole row.
        *sessions, rest = zip(*(torch.split(states, lengths, 2) for states in (query, key, value)), strict=True)
        for (q, k, v), (prompt, _), masks in zip(sessions, self._sessions, self._masks, strict=True):
            if layer == self._last_layer:
                unread, read = torch.split(q, [prompt - 1, q.shape[2] - prompt + 1], 2)
                parts += torch.zeros_like(unread), masked_attention(read, k, v, masks[0], scaling)
            else:
                own, profiles = torch.split(q, [prompt, q.shape[2] - prompt], 2)
                parts.append(causal_attention(own, k[:, :, :prompt], v[:, :, :prompt], scaling))
                if profiles.shape[2]:
                    parts.append(masked_attention(profiles, k, v, masks[1], scaling))
        return torch.cat([*parts, torch.zeros_like(rest[0])], 2).transpose(1, 2)


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
