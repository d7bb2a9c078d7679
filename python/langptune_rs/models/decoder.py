"""A decoder's layers, run over packed tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from langptune_rs.models.attention import Layout
from langptune_rs.models.mixed import MixedLinear

_PARTS = ("input_layernorm", "self_attn", "post_attention_layernorm", "mlp")


class Decoder(Protocol):
    """What `run_layers` and `last_hidden` need of a decoder, as transformers' full-attention models name it."""

    layers: nn.ModuleList
    norm: nn.Module
    rotary_emb: nn.Module


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
    options = {"attention_mask": None, "position_ids": position_ids, "position_embeddings": rotary, "layout": layout}
    for layer in layers:
        if checkpointing and torch.is_grad_enabled():
            hidden = checkpoint(layer, hidden, use_reentrant=False, **options)
        else:
            hidden = layer(hidden, **options)
    return hidden


def last_hidden(
    decoder: Decoder, hidden: Tensor, position_ids: Tensor, layout: Layout, rows: Tensor, *, checkpointing: bool
) -> Tensor:
    """Normalised output (rows, width) of the decoder's last layer at `rows`, from the hidden states before that layer.

    If the last layer has the usual four parts, only these rows go through its feed-forward network. Nothing reads the
    attention of any other row, so `layout` need not compute it.
    """
    layer = decoder.layers[-1]
    if set(dict(layer.named_children())) != set(_PARTS):
        after = run_layers(decoder, [layer], hidden, position_ids, layout, checkpointing=checkpointing)
        return cast(Tensor, decoder.norm(after[0, rows]))
    input_norm, self_attention, output_norm, feed_forward = (layer.get_submodule(name) for name in _PARTS)

    def at_rows(hidden: Tensor) -> Tensor:
        attended, _ = self_attention(
            hidden_states=input_norm(hidden),
            attention_mask=None,
            position_ids=position_ids,
            position_embeddings=decoder.rotary_emb(hidden, position_ids=position_ids),
            layout=layout,
        )
        kept = hidden[0, rows] + attended[0, rows]
        return cast(Tensor, decoder.norm(kept + feed_forward(output_norm(kept))))

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
