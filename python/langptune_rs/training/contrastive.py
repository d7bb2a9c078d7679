"""Contrastive training of the embedder: profiles against the items their users chose next (section 3.2, Eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from langptune_rs.models.embedder import Embedder
from langptune_rs.training.config import ContrastiveConfig
from langptune_rs.training.engines import gather_rows, optimizer_step, set_learning_rate, shard, world_size


def info_nce(
    profiles_BD: Tensor, items_BD: Tensor, targets_B: Tensor, temperature: float, log_share_B: Tensor | None = None
) -> Tensor:
    """InfoNCE of Eq. 7, the mean over the batch, a float32 scalar.

    Row b of `items_BD` is the positive of profile b and a negative of the others, unless they share the target
    (`targets_B`, item indexes): the same item cannot be both, so those entries are masked.

    A popular item is a negative as often as it is popular, which teaches the embedder to rank it low. `log_share_B`,
    the log of each target's share of all training targets, is subtracted from its logits and takes that out
    (Yi et al., Sampling-bias-corrected neural modeling for large corpus item recommendations, RecSys 2019).
    """
    logits = profiles_BD @ items_BD.T / temperature
    if log_share_B is not None:
        logits = logits - log_share_B
    same = targets_B[:, None] == targets_B[None, :]
    same.fill_diagonal_(False)
    logits = logits.masked_fill(same, float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(targets_B), device=logits.device))


def contrastive_step(
    engine,
    embedder: Embedder,
    profiles: Sequence[str],
    item_texts: Sequence[str],
    targets: Tensor,
    config: ContrastiveConfig,
    learning_rate: float,
    log_share: Tensor | None = None,
) -> dict[str, float]:
    """One optimizer step over the global batch; all arguments describe the global batch, on every rank alike.

    Each rank embeds its share with gradients, the embeddings of the others arrive without them, and every rank
    computes the same loss over the whole batch. What flows back into a rank is the gradient of that loss at its own
    rows, so the sum over ranks is the gradient of the global loss, whatever the world size.
    """
    own = shard(profiles)
    queries, items = embedder.as_queries(profiles[own]), item_texts[own]
    slices = [slice(i, i + config.micro_batch_size) for i in range(0, len(queries), config.micro_batch_size)]
    embedded = [(embedder.embed(engine, queries[part]), embedder.embed(engine, items[part])) for part in slices]

    profiles_BD, items_BD = (gather_rows(torch.cat(side)).requires_grad_() for side in zip(*embedded, strict=True))
    targets = targets.to(profiles_BD.device)
    log_share = None if log_share is None else log_share.to(profiles_BD.device)
    loss = info_nce(profiles_BD, items_BD, targets, config.temperature, log_share)
    grad_profiles, grad_items = torch.autograd.grad(loss, (profiles_BD, items_BD))

    for part, (profiles_part, items_part) in zip(slices, embedded, strict=True):
        surrogate = (profiles_part * grad_profiles[own][part]).sum() + (items_part * grad_items[own][part]).sum()
        engine.backward(surrogate * world_size())
    set_learning_rate(engine, learning_rate)
    norm = optimizer_step(engine)
    with torch.no_grad():
        hits = targets[(profiles_BD @ items_BD.T).argmax(1)] == targets
    return {
        "contrastive/loss": loss.item(),
        "contrastive/accuracy": hits.float().mean().item(),
        "contrastive/grad_norm": norm,
        "contrastive/learning_rate": learning_rate,
    }
