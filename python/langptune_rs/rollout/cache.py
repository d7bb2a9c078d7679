"""Keys and values of a batch of prompts and of the profiles that are being written for them.

A prompt is held once for all its samples, with room behind it for what they write: slot t * G + g behind the prompt
is token t of sample g. Prompts of similar length share a block, so that little of it is padding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from langptune_rs.models.attention import Layout, additive, causal_attention, for_heads, masked_attention

PROMPTS_PER_BLOCK = {"cpu": 8, "cuda": 64}
"""By device: a GPU would rather compute padding than start many small kernels."""
WORTH_HOLDING = 0.75
"""Prompts that no sample goes on for leave their block once less than this share of it is in use."""


class ProfileCache:
    """The cache of one batch, and which samples are still being written: its rows, prompt by prompt."""

    def __init__(self, lengths: Sequence[int], num_samples: int, max_tokens: int, like: Tensor):
        """For prompts of these lengths, best in ascending order; `like` has the model's dtype and device."""
        self._device, self._each = like.device, PROMPTS_PER_BLOCK[like.device.type]
        starts = range(0, len(lengths), self._each)
        self._blocks = [_Block(lengths[start : start + self._each], num_samples, max_tokens, like) for start in starts]
        self._prefix = _Prefix()
        prompts = np.repeat(np.arange(len(lengths)), num_samples)
        self._block_of, self._place = prompts // self._each, prompts % self._each
        self._sample = np.tile(np.arange(num_samples), len(lengths))

    def reading_prefix(self) -> Layout:
        """The layout in which what all prompts begin with is read, once and before them."""
        return self._prefix

    def reading(self, prompts: Sequence[int], lengths: Sequence[int], last_layer: int) -> Layout:
        """The layout in which some of the prompts are read, one behind the other, `lengths` without the prefix. Tokens
        behind them see nothing.

        Of `last_layer` the attention of each prompt's last token alone is right: no other is looked at.
        """
        places = [(self._blocks[i // self._each], i % self._each) for i in prompts]
        return _ReadPrompts(places, lengths, self._prefix, last_layer)

    def writing(self, step: int) -> Layout:
        """The layout of one new token for each row, the 0-based `step` of its profile."""
        bounds = np.searchsorted(self._block_of, np.arange(len(self._blocks) + 1)).tolist()
        rows = [slice(start, end) for start, end in itertools.pairwise(bounds)]
        prompts, samples = (torch.from_numpy(x).to(self._device) for x in (self._place, self._sample))
        return _WriteTokens(self._blocks, rows, prompts, samples, step)

    def keep(self, going: np.ndarray) -> None:
        """Go on with the rows where `going`, bool (rows,)."""
        self._block_of, self._place, self._sample = (
            rows[going] for rows in (self._block_of, self._place, self._sample)
        )
        for i, block in enumerate(self._blocks):
            rows = self._block_of == i
            used, places = np.unique(self._place[rows], return_inverse=True)
            if len(used) < WORTH_HOLDING * block.num_prompts:
                block.keep(used)
                self._place[rows] = places


class _Block:
    """Prompts that are padded to one length."""

    def __init__(self, lengths: Sequence[int], num_samples: int, max_tokens: int, like: Tensor):
        self.num_prompts, self.num_samples, self.width = len(lengths), num_samples, max(lengths)
        self._room = self.width + max_tokens * num_samples
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        slots = torch.arange(self._room, device=like.device)
        in_prompt = slots < torch.tensor(lengths, device=like.device)[:, None]
        sample = torch.arange(num_samples, device=like.device)[:, None]
        own = (slots >= self.width) & ((slots - self.width) % num_samples == sample)
        self._mask = additive(in_prompt[:, None] | own, like.dtype)
        self._mask_of_step: tuple[int, Tensor] | None = None
        """The slots that a step sees, and their mask for all layers."""

    def hold(self, layer: int, prompt: int, key: Tensor, value: Tensor) -> None:
        """Keep the keys and values (1, kv_heads, tokens, width) of a prompt."""
        for held, states in ((self._keys, key), (self._values, value)):
            if layer not in held:
                held[layer] = states.new_zeros(self.num_prompts, states.shape[1], self._room, states.shape[3])
            held[layer][prompt, :, : states.shape[2]] = states[0]

    def attend(
        self,
        layer: int,
        place: tuple[Tensor, Tensor],
        step: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float | None,
    ) -> Tensor:
        """Attention (rows, heads, width) of the next token of the samples at `place`, whose states are added."""
        prompts, samples = place
        start = self.width + step * self.num_samples
        end = start + self.num_samples
        self._keys[layer][prompts, :, start + samples] = key
        self._values[layer][prompts, :, start + samples] = value
        queries = query.new_zeros(self.num_prompts, self.num_samples, *query.shape[1:])
        queries[prompts, samples] = query
        keys, values = self._keys[layer][:, :, :end], self._values[layer][:, :, :end]
        queries = queries.transpose(1, 2)
        if self._mask_of_step is None or self._mask_of_step[0] != end:
            self._mask_of_step = end, for_heads(self._mask[:, :, :end], queries, keys)
        out = masked_attention(queries, keys, values, self._mask_of_step[1], scaling)
        return out.transpose(1, 2)[prompts, samples]

    def keep(self, prompts: np.ndarray) -> None:
        """Let all prompts but these leave."""
        rows = torch.from_numpy(prompts).to(self._mask.device)
        self.num_prompts, self._mask, self._mask_of_step = len(prompts), self._mask[rows], None
        for held in (self._keys, self._values):
            for layer in held:
                held[layer] = held[layer][rows]


class _Prefix:
    """Layout of what all prompts begin with; keeps its keys and values. Empty until it is read."""

    def __init__(self) -> None:
        self._states: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        self._states[layer] = key, value
        return causal_attention(query, key, value, scaling).transpose(1, 2)

    def before(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of the prefix and, behind them, those given."""
        if layer not in self._states:
            return key, value
        return tuple(torch.cat(pair, 2) for pair in zip(self._states[layer], (key, value), strict=True))


class _ReadPrompts:
    """Layout of prompts one behind the other."""

    def __init__(self, places: Sequence[tuple[_Block, int]], lengths: Sequence[int], prefix: _Prefix, last_layer: int):
        self._places, self._lengths, self._prefix, self._last_layer = places, lengths, prefix, last_layer

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        out = torch.zeros_like(query)
        end = 0
        for (block, prompt), length in zip(self._places, self._lengths, strict=True):
            start, end = end, end + length
            keys, values = self._prefix.before(layer, key[:, :, start:end], value[:, :, start:end])
            block.hold(layer, prompt, keys, values)
            if layer == self._last_layer:
                last = slice(end - 1, end)
                everything = for_heads(query.new_zeros(1, 1, keys.shape[2]), query, keys)
                out[:, :, last] = masked_attention(query[:, :, last], keys, values, everything, scaling)
            else:
                num_before = keys.shape[2] - length
                rows = F.pad(query[:, :, start:end], (0, 0, num_before, 0))
                out[:, :, start:end] = causal_attention(rows, keys, values, scaling)[:, :, num_before:]
        return out.transpose(1, 2)


class _WriteTokens:
    """Layout of one new token for each row."""

    def __init__(self, blocks: Sequence[_Block], rows: Sequence[slice], prompts: Tensor, samples: Tensor, step: int):
        """`rows` are those of each block; `prompts` and `samples` say of every row whose it is."""
        self._blocks, self._rows, self._step = blocks, rows, step
        self._places = [(prompts[of_block], samples[of_block]) for of_block in rows]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
        parts = [
            block.attend(layer, place, self._step, query[rows], key[rows], value[rows], scaling)
            for block, rows, place in zip(self._blocks, self._rows, self._places, strict=True)
            if rows.start < rows.stop
        ]
        return torch.cat(parts)[None]
