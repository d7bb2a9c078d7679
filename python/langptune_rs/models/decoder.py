"""A decoder's layers, run over packed tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from langptune_rs.models.attention import Layout, attending
from langptune_rs.models.mixed import MixedLinear

PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")
"""The parts of a usual layer."""
_NORMS = ("norm", "final_layernorm", "final_layer_norm")
"""What transformers calls the norm after the last layer: in most models, in Phi and in GPT-NeoX."""


@dataclass(frozen=True)
class Decoder:
    """What `run_layers` and `last_hidden` need of a decoder."""

    layers: nn.ModuleList
    norm: nn.Module
    rotary_emb: nn.Module

    @classmethod
    def of(cls, module: nn.Module) -> Decoder | None:
        """The parts of one of transformers' decoders; None for one that is built otherwise."""
        layers, rotary = getattr(module, "layers", None), getattr(module, "rotary_emb", None)
        norm = next((getattr(module, name) for name in _NORMS if hasattr(module, name)), None)
        if not isinstance(layers, nn.ModuleList) or not isinstance(rotary, nn.Module) or norm is None:
            return None
        return cls(layers, norm, rotary)


def run_layers(
    decoder: Decoder,
    layers: Iterable[nn.Module],
    hidden: Tensor,
    position_ids: Tensor,
    layout: Layout,
    *,
    checkpointing: bool = False,
) -> Tensor:
    """Hidden states (1, tokens, width) after `layers` of `decoder`, from those before them.

    `position_ids` is (1, tokens). With `checkpointing` a layer keeps only its input for the backward pass, which
    computes the rest again.
    """
    rotary = decoder.rotary_emb(hidden, position_ids=position_ids)
    options = {"attention_mask": None, "position_ids": position_ids, "position_embeddings": rotary}
    for layer in layers:
        if checkpointing and torch.is_grad_enabled():
            hidden = checkpoint(_run_layer, layer, hidden, layout, options, use_reentrant=False)
        else:
            hidden = _run_layer(layer, hidden, layout, options)
    return hidden


def _run_layer(layer: nn.Module, hidden: Tensor, layout: Layout, options: dict[str, Any]) -> Tensor:
    """One layer. The block is in here, since checkpointing calls this again while gradients are computed."""
    with attending(layout):
        return cast(Tensor, layer(hidden, **options))


def last_hidden(
    decoder: Decoder, hidden: Tensor, position_ids: Tensor, layout: Layout, rows: Tensor, *, checkpointing: bool
) -> Tensor:
    """Normalised output (rows, width) of the decoder's last layer at `rows`, from the hidden states before that layer.

    If the last layer has the usual four parts, only these rows go through its feed-forward network. Nothing reads the
    attention of any other row, so `layout` need not compute it.
    """
    layer = decoder.layers[-1]
    if set(dict(layer.named_children())) != set(PARTS):
        after = run_layers(decoder, [layer], hidden, position_ids, layout, checkpointing=checkpointing)
        return cast(Tensor, decoder.norm(after[0, rows]))
    input_norm, self_attention, output_norm, feed_forward = (layer.get_submodule(name) for name in PARTS)

    def at_rows(hidden: Tensor) -> Tensor:
        with attending(layout):
            attended, _ = self_attention(
                hidden_states=input_norm(hidden),
                attention_mask=None,
                position_ids=position_ids,
                position_embeddings=decoder.rotary_emb(hidden, position_ids=position_ids),
            )
        kept = hidden[:, rows] + attended[:, rows]  # with a batch of one in front, which mixtures of experts expect
        return cast(Tensor, decoder.norm(kept + feed_forward(output_norm(kept)))[0])

    if checkpointing and torch.is_grad_enabled():
        return checkpoint(at_rows, hidden, use_reentrant=False)
    return at_rows(hidden)


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """Inside the block, bfloat16 matrices on a CPU are in the memory format of its matrix kernels.

    Otherwise the kernels reorder them at every call, which costs more than the product for the few rows of a decoding
    step. The reordered copies are freed after the block; the weights must not change inside it.
    """
    patched = [module for module in model.modules() if _can_be_packed(module)]
    for module in patched:
        packed = torch.ops.mkldnn._reorder_linear_weight(module.get_parameter("weight").detach())
        module.forward = _packed_linear(packed, cast("Tensor | None", module.bias))
    try:
        yield
    finally:
        for module in patched:
            del module.forward


def _can_be_packed(module: nn.Module) -> bool:
    return (
        type(module) in (nn.Linear, MixedLinear)
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _packed_linear(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor]:
    def forward(rows: Tensor) -> Tensor:
        return cast(Tensor, torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], ""))

    return forward
