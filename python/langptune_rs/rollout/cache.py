"""A key-value cache that has room for the profile from the start.

transformers' own cache is concatenated anew at every token, which copies all of it; on a CPU that costs as much as
attention itself.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig
from transformers.cache_utils import DynamicLayer


def make_cache(config: PretrainedConfig, room: int) -> DynamicCache:
    """An empty cache for a model; each full-attention layer reserves `room` tokens behind what it first receives."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, (batch, kv_heads, tokens, width), as views into larger buffers."""

    def __init__(self, room: int):
        super().__init__()
        self._room = room
        self._buffers: dict[str, Tensor] = {}

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        length = self.get_seq_length()
        self.keys = self._append("keys", self.keys, length, key_states)
        self.values = self._append("values", self.values, length, value_states)
        return self.keys, self.values

    def _append(self, name: str, held: Tensor, length: int, states: Tensor) -> Tensor:
        end = length + states.shape[2]
        buffer = self._buffers.get(name)
        if buffer is None or buffer.shape[2] < end:
            batch, heads, _, width = states.shape
            buffer = self._buffers[name] = states.new_empty(batch, heads, end + self._room, width)
            if length:
                buffer[:, :, :length] = held
        buffer[:, :, length:end] = states
        return buffer[:, :, :end]

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)
        self._buffers = {}

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        super().batch_select_indices(indices)
        self._buffers = {}
