"""The key-value cache of a batch of prompts and of the profiles that are being written for them.

A prompt is stored once for all its G samples, followed by slots for their tokens: slot t * G + g after the prompt is
token t of sample g. Prompts of similar length share a block, so that little of it is padding.
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
"""By device type: on a GPU some padding costs less than many small kernels."""
MIN_SHARE_IN_USE = 0.75
"""A block drops the prompts whose samples have all ended when less than this share of its prompts is in use."""


class ProfileCache:
    """The cache of one batch. Its rows, prompt by prompt, are the samples that are still being written."""

    def __init__(self, lengths: Sequence[int], num_samples: int, max_tokens: int, like: Tensor):
        """For prompts of these lengths, best in ascending order; `like` has the model's dtype and device."""
        self._device, self._block_size = like.device, PROMPTS_PER_BLOCK[like.device.type]
        parts = [lengths[start : start + self._block_size] for start in range(0, len(lengths), self._block_size)]
        self._blocks = [_Block(part, num_samples, max_tokens, like) for part in parts]
        self._prefix = _Prefix()
        prompts = np.repeat(np.arange(len(lengths)), num_samples)
        self._block_of, self._place = prompts // self._block_size, prompts % self._block_size
        self._sample = np.tile(np.arange(num_samples), len(lengths))

    def reading_prefix(self) -> Layout:
        """The layout for reading the shared prefix of all prompts, once and before the prompts."""
        return self._prefix

    def reading(self, prompts: Sequence[int], lengths: Sequence[int], last_layer: int) -> Layout:
        """The layout for reading some of the prompts, packed into one row; `lengths` are theirs without the prefix.

        In `last_layer` only each prompt's final token is computed; nothing reads the rest. Padding at the end of the
        row attends to nothing.
        """
        places = [(self._blocks[i // self._block_size], i % self._block_size) for i in prompts]
        return _ReadPrompts(places, lengths, self._prefix, last_layer)

    def writing(self, step: int) -> Layout:
        """The layout for one new token in each row: token `step` of its profile, counted from 0."""
        bounds = np.searchsorted(self._block_of, np.arange(len(self._blocks) + 1)).tolist()
        rows = [slice(start, end) for start, end in itertools.pairwise(bounds)]
        prompts, samples = (torch.from_numpy(x).to(self._device) for x in (self._place, self._sample))
        return _WriteTokens(self._blocks, rows, prompts, samples, step)

    def keep(self, unfinished: np.ndarray) -> None:
        """Drop all rows but the `unfinished`, bool (rows,)."""
        self._block_of, self._place, self._sample = (
            rows[unfinished] for rows in (self._block_of, self._place, self._sample)
        )
        for i, block in enumerate(self._blocks):
            rows = self._block_of == i
            used, places = np.unique(self._place[rows], return_inverse=True)
            if len(used) < MIN_SHARE_IN_USE * block.num_prompts:
                block.keep(used)
                self._place[rows] = places


class _Block:
    """Prompts padded to the same length, and the slots of their samples."""

    def __init__(self, lengths: Sequence[int], num_samples: int, max_tokens: int, like: Tensor):
        self.num_prompts, self.num_samples, self.width = len(lengths), num_samples, max(lengths)
        self._num_slots = self.width + max_tokens * num_samples
        self._keys: dict[int, Tensor] = {}
        self._values: dict[int, Tensor] = {}
        slots = torch.arange(self._num_slots, device=like.device)
        in_prompt = slots < torch.tensor(lengths, device=like.device)[:, None]
        sample = torch.arange(num_samples, device=like.device)[:, None]
        own = (slots >= self.width) & ((slots - self.width) % num_samples == sample)
        self._mask = additive(in_prompt[:, None] | own, like.dtype)
        self._mask_of_step: tuple[int, Tensor] | None = None
        """How many slots a step attends to, and its mask, which all layers share."""

    def store(self, layer: int, prompt: int, key: Tensor, value: Tensor) -> None:
        """Store the keys and values (1, kv_heads, tokens, width) of a prompt."""
        for stored, states in ((self._keys, key), (self._values, value)):
            if layer not in stored:
                stored[layer] = states.new_zeros(self.num_prompts, states.shape[1], self._num_slots, states.shape[3])
            stored[layer][prompt, :, : states.shape[2]] = states[0]

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
        """Attention (rows, heads, width) of token `step` of the samples at `place`. Stores its keys and values."""
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
        """Drop all prompts but these."""
        rows = torch.from_numpy(prompts).to(self._mask.device)
        self.num_prompts, self._mask, self._mask_of_step = len(prompts), self._mask[rows], None
        for stored in (self._keys, self._values):
            for layer in stored:
                stored[layer] = stored[layer][rows]


class _Prefix:
    """Layout of the shared prefix of all prompts; stores its keys and values. Empty until the prefix is read."""

    def __init__(self) -> None:
        self._states: dict[int, tuple[Tensor, Tensor]] = {}

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        self._states[layer] = key, value
        return causal_attention(query, key, value, scaling).transpose(1, 2)

    def prepended(self, layer: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The given keys and values after those of the prefix."""
        if layer not in self._states:
            return key, value
        prefix_key, prefix_value = self._states[layer]
        return torch.cat((prefix_key, key), 2), torch.cat((prefix_value, value), 2)


class _ReadPrompts:
    """Layout of prompts packed into one row."""

    def __init__(self, places: Sequence[tuple[_Block, int]], lengths: Sequence[int], prefix: _Prefix, last_layer: int):
        self._places, self._lengths, self._prefix, self._last_layer = places, lengths, prefix, last_layer

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        out = torch.zeros_like(query)
        end = 0
        for (block, prompt), length in zip(self._places, self._lengths, strict=True):
            start, end = end, end + length
            keys, values = self._prefix.prepended(layer, key[:, :, start:end], value[:, :, start:end])
            block.store(layer, prompt, keys, values)
            if layer == self._last_layer:
                last = slice(end - 1, end)
                mask = for_heads(query.new_zeros(1, 1, keys.shape[2]), query, keys)  # all visible
                out[:, :, last] = masked_attention(query[:, :, last], keys, values, mask, scaling)
            else:
                num_prefix = keys.shape[2] - length
                queries = F.pad(query[:, :, start:end], (0, 0, num_prefix, 0))
                out[:, :, start:end] = causal_attention(queries, keys, values, scaling)[:, :, num_prefix:]
        return out.transpose(1, 2)


class _WriteTokens:
    """Layout of one new token for each row."""

    def __init__(self, blocks: Sequence[_Block], rows: Sequence[slice], prompts: Tensor, samples: Tensor, step: int):
        """`rows` is the slice of each block. `prompts`, counted within their block, and `samples` are (rows,)."""
        self._blocks, self._rows, self._step = blocks, rows, step
        self._places = [(prompts[block_rows], samples[block_rows]) for block_rows in rows]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        query, key, value = (states[0].transpose(0, 1) for states in (query, key, value))
        parts = [
            block.attend(layer, place, self._step, query[rows], key[rows], value[rows], scaling)
            for block, rows, place in zip(self._blocks, self._rows, self._places, strict=True)
            if rows.start < rows.stop
        ]
        return torch.cat(parts)[None]
