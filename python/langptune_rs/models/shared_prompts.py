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
