"""A decoder's layers by the kernels of the core, for reading and writing texts on a CPU.

Between two matrix products all that a layer does is one call: the sum with the residual stream and its norm; rotation,
cache and attention of all rows; the gate. The residual stream is in float32, keys and values in the model's precision.
Every row is computed alone, so it does not depend on what else is in the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from langptune_rs import _core
from langptune_rs.models.decoder import PARTS, Decoder
from langptune_rs.models.linear import PackedLinear, is_linear
from langptune_rs.models.norms import RootMeanSquareNorm

_GATES = {"SiLUActivation": "silu", "SiLU": "silu", "GELUTanh": "gelu_tanh"}
"""By the class of the activation in transformers or torch."""
_Norm = tuple[NDArray[np.float32], float]
"""Weights and epsilon of a root mean square norm."""


@dataclass(frozen=True)
class _Layer:
    input_norm: _Norm
    qkv: PackedLinear
    head_norms: tuple[NDArray[np.float32], NDArray[np.float32], float] | None
    scaling: float
    output: PackedLinear
    feed_forward_norm: _Norm
    gate_up: PackedLinear
    gate: str
    down: PackedLinear


@dataclass(frozen=True)
class Tokens:
    """New tokens for all layers."""

    embeddings: Tensor
    """(tokens, width)."""
    positions: Tensor
    """int64 (tokens,)."""
    segments: NDArray[np.int64]
    """int64 (tokens,): the segment of the cache that each one continues, in ascending order."""
    read: NDArray[np.int64]
    """int64 (read,): the tokens whose final state is read, in ascending order."""


class FusedDecoder:
    """Copies of a decoder's layers, which do not see later changes of the model."""

    def __init__(self, layers: list[_Layer], norm: _Norm, rotary: nn.Module, shape: tuple[int, int, int], half: bool):
        self._layers, self._norm, self._rotary, self._shape, self._half = layers, norm, rotary, shape, half

    @classmethod
    def of(cls, decoder: Decoder, dtype: torch.dtype) -> FusedDecoder | None:
        """The layers with weights in `dtype`; None for layers that are built otherwise than these kernels compute.

        Layers may still compute something else with the same parts; `acceptance.is_fusable` finds that.
        """
        head_dim = getattr(getattr(decoder.layers[0], "self_attn", None), "head_dim", None)
        if not isinstance(head_dim, int) or (norm := _norm(decoder.norm)) is None:
            return None
        known = [_Known.of(layer, head_dim) for layer in decoder.layers]
        if not all(known):
            return None
        config = getattr(decoder.layers[0].self_attn, "config", None)
        num_heads, num_kv_heads = (getattr(config, f"num_{name}_heads", 0) for name in ("attention", "key_value"))
        layers = [layer.packed(dtype) for layer in known if layer]
        width = (num_heads + 2 * num_kv_heads) * head_dim
        if not num_kv_heads or num_heads % num_kv_heads or any(layer.qkv.num_outputs != width for layer in layers):
            return None
        fused = cls(layers, norm, decoder.rotary_emb, (num_heads, num_kv_heads, head_dim), dtype == torch.bfloat16)
        num_rotated = fused._angles(torch.zeros(1, dtype=torch.int64))[0].shape[-1]
        return fused if num_rotated <= head_dim and num_rotated % 2 == 0 else None

    def cache(self, capacities: list[int], parents: list[int | None]) -> _core.KvCache:
        """An empty cache of segments for so many tokens, each with the earlier segment that it continues."""
        return _core.KvCache(len(self._layers), *self._shape, capacities, parents, self._half)

    def run(self, cache: _core.KvCache, tokens: Tokens, cut: int) -> tuple[Tensor, Tensor]:
        """Hidden states (tokens, width) after `cut` layers, and the normalised final ones (read, width), in float32.

        The tokens' keys and values are added to the cache.
        """
        residual = np.array(tokens.embeddings.float().numpy())
        cosines, sines = self._angles(tokens.positions)
        everything = np.arange(len(residual))
        at_cut: Tensor | None = None
        delta: NDArray[np.float32] | None = None
        for number, layer in enumerate(self._layers):
            normed = _add_and_normalize(residual, delta, layer.input_norm)
            if number == cut:
                at_cut = torch.from_numpy(residual.copy())
            is_last = number == len(self._layers) - 1
            read = tokens.read if is_last else everything
            attended = np.empty((len(read), self._shape[0] * self._shape[2]), dtype=np.float32)
            rows = layer.qkv(normed).numpy()
            cache.attend(number, rows, tokens.segments, cosines, sines, layer.head_norms, read, layer.scaling, attended)
            if is_last and len(read) < len(residual):
                residual = residual[read]
            normed = _add_and_normalize(
                residual, layer.output(torch.from_numpy(attended)).numpy(), layer.feed_forward_norm
            )
            halves = layer.gate_up(normed).numpy()
            gated = np.empty((len(halves), halves.shape[1] // 2), dtype=np.float32)
            _core.gate(layer.gate, halves, gated)
            delta = layer.down(torch.from_numpy(gated)).numpy()
        final = _add_and_normalize(residual, delta, self._norm)
        assert at_cut is not None, "the cut is before a layer"
        return at_cut, final

    def _angles(self, positions: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Cosines and sines (tokens, rotated dimensions) of the rotary angles at positions (tokens,)."""
        cosines, sines = self._rotary(torch.empty(0, dtype=torch.float32), position_ids=positions[None])
        return np.ascontiguousarray(cosines[0].numpy()), np.ascontiguousarray(sines[0].numpy())


def _add_and_normalize(residual: NDArray[np.float32], delta: NDArray[np.float32] | None, norm: _Norm) -> Tensor:
    """The norm of the residual stream, to which `delta` is added in place."""
    out = np.empty_like(residual)
    _core.add_and_normalize(residual, delta, *norm, out)
    return torch.from_numpy(out)


def _parts(module: nn.Module) -> dict[str, nn.Module]:
    """The modules directly in this one that do something when nothing is trained."""
    return {name: child for name, child in module.named_children() if not isinstance(child, nn.Dropout)}


@dataclass(frozen=True)
class _Known:
    """The parts of a layer like Llama's, perhaps with norms of queries and keys as Qwen 3 has them."""

    input_norm: _Norm
    qkv: list[nn.Module]
    head_norms: list[_Norm]
    scaling: float
    output: nn.Module
    feed_forward_norm: _Norm
    gate_up: list[nn.Module]
    gate: str
    down: nn.Module

    @classmethod
    def of(cls, layer: nn.Module, head_dim: int) -> _Known | None:
        """The parts of a layer whose heads are so wide; None for a layer that has others."""
        if set(_parts(layer)) != set(PARTS):
            return None
        attention, feed_forward = (_parts(layer.get_submodule(name)) for name in ("self_attn", "mlp"))
        norms = [_norm(layer.get_submodule(name)) for name in ("input_layernorm", "post_attention_layernorm")]
        head_norms = [_norm(attention.pop(name)) for name in ("q_norm", "k_norm") if name in attention]
        gates = [feed_forward.pop(name) for name in ("act_fn", "activation_fn") if name in feed_forward]
        qkv = _taken(attention, ["q_proj", "k_proj", "v_proj"], ["qkv_proj"])
        output = _taken(attention, ["o_proj"])
        gate_up = _taken(feed_forward, ["gate_proj", "up_proj"], ["gate_up_proj"])
        down = _taken(feed_forward, ["down_proj"])
        scaling = getattr(layer.self_attn, "scaling", None)
        input_norm, feed_forward_norm = norms
        if (
            attention
            or feed_forward
            or not (qkv and output and gate_up and down)
            or len(gates) != 1
            or type(gates[0]).__name__ not in _GATES
            or len(head_norms) not in (0, 2)
            or not all(norm is not None and norm[0].shape == (head_dim,) for norm in head_norms)
            or input_norm is None
            or feed_forward_norm is None
            or not isinstance(scaling, float)
        ):
            return None
        return cls(
            input_norm,
            qkv,
            [norm for norm in head_norms if norm is not None],
            scaling,
            output[0],
            feed_forward_norm,
            gate_up,
            _GATES[type(gates[0]).__name__],
            down[0],
        )

    def packed(self, dtype: torch.dtype) -> _Layer:
        """A copy of the layer with weights in `dtype`."""
        head_norms = None
        if self.head_norms:
            (queries, epsilon), (keys, _) = self.head_norms
            head_norms = (queries, keys, epsilon)
        return _Layer(
            self.input_norm,
            PackedLinear(self.qkv, dtype),
            head_norms,
            self.scaling,
            PackedLinear([self.output], dtype),
            self.feed_forward_norm,
            PackedLinear(self.gate_up, dtype),
            self.gate,
            PackedLinear([self.down], dtype),
        )


def _taken(modules: dict[str, nn.Module], *names: list[str]) -> list[nn.Module]:
    """The linear layers of the first list of names that is there, which leave `modules`; none without such a list."""
    for of_list in names:
        if all(name in modules and is_linear(modules[name]) for name in of_list):
            return [modules.pop(name) for name in of_list]
    return []


def _norm(module: nn.Module) -> _Norm | None:
    """What a root mean square norm multiplies by, and its epsilon; None for another norm."""
    if (norm := RootMeanSquareNorm.of(module)) is None:
        return None
    return (module.get_parameter("weight").detach().float() + norm.offset).numpy(), norm.epsilon
