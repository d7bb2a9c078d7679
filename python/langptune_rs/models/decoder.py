"""A decoder's layers, run over tokens that lie in one row without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from langptune_rs.models.attention import Layout

_PARTS = {"self_attn", "mlp", "input_layernorm", "post_attention_layernorm"}


def run_layers(
    decoder: nn.Module,
    layers: Sequence[nn.Module],
    hidden: Tensor,
    position_ids: Tensor,
    layout: Layout,
    *,
    checkpointing: bool = False,
) -> Tensor:
    """Hidden states (1, tokens, width) behind `layers` of `decoder`, from those before them.

    `position_ids` is (1, tokens). With `checkpointing` a layer keeps its input alone for the backward pass, which
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
    decoder: nn.Module, hidden: Tensor, position_ids: Tensor, layout: Layout, rows: Tensor, *, checkpointing: bool
) -> Tensor:
    """Normalised output (rows, width) of the decoder's last layer at `rows`, from the hidden states before that layer.

    Only these rows go through the feed-forward network of the last layer where its parts are the usual four; `layout`
    need not compute the attention of any other row.
    """
    layer = decoder.layers[-1]
    if set(dict(layer.named_children())) != _PARTS:
        return decoder.norm(
            run_layers(decoder, [layer], hidden, position_ids, layout, checkpointing=checkpointing)[0, rows]
        )

    def at_rows(hidden: Tensor) -> Tensor:
        attended, _ = layer.self_attn(
            hidden_states=layer.input_layernorm(hidden),
            attention_mask=None,
            position_ids=position_ids,
            position_embeddings=decoder.rotary_emb(hidden, position_ids=position_ids),
            layout=layout,
        )
        kept = hidden[0, rows] + attended[0, rows]
        return decoder.norm(kept + layer.mlp(layer.post_attention_layernorm(kept)))

    if checkpointing and torch.is_grad_enabled():
        return checkpoint(at_rows, hidden, use_reentrant=False)
    return at_rows(hidden)


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """Inside the block, bfloat16 matrices on a CPU lie as its matrix kernels read them.

    Otherwise the kernels lay them out anew at every call, which costs more than the product for the few rows of a
    decoding step. Outside the block nothing is left of the copies; the weights must not change inside it.
    """
    patched = [module for module in model.modules() if _can_be_packed(module)]
    for module in patched:
        packed = torch.ops.mkldnn._reorder_linear_weight(module.weight.detach())
        module.forward = _packed_linear(packed, module.bias)
    try:
        yield
    finally:
        for module in patched:
            del module.forward


def _can_be_packed(module: nn.Module) -> bool:
    return (
        type(module) is nn.Linear
        and module.weight.device.type == "cpu"
        and module.weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    )


def _packed_linear(weight: Tensor, bias: Tensor | None):
    def forward(rows: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")

    return forward
