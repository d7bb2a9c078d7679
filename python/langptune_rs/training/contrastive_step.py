"""Contrastive training of the embedder: profiles against the items their users chose next (section 3.2, Eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from langptune_rs.config.contrastive import ContrastiveConfig
from langptune_rs.data import Dataset
from langptune_rs.distributed.collectives import gather_objects, gather_rows, shard, world_size
from langptune_rs.models.embedder import Embedder
from langptune_rs.training.engines import Engine, optimizer_step, set_learning_rate


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


@dataclass(frozen=True)
class ContrastiveBatch:
    """The global batch, on every rank alike: B profiles, and of each the text and the index of its target."""

    profiles: Sequence[str]
    item_texts: Sequence[str]
    targets: Tensor
    """int64 (B,)."""
    log_share: Tensor | None = None
    """(B,), what `info_nce` corrects popularity by."""


def contrastive_step(
    engine: Engine, embedder: Embedder, batch: ContrastiveBatch, config: ContrastiveConfig, learning_rate: float
) -> dict[str, float]:
    """One optimizer step over the global batch."""
    loss, accuracy = accumulate_gradients(engine, embedder, batch, config)
    set_learning_rate(engine, learning_rate)
    norm = optimizer_step(engine)
    return {
        "contrastive/loss": loss,
        "contrastive/accuracy": accuracy,
        "contrastive/grad_norm": norm,
        "contrastive/learning_rate": learning_rate,
    }


def accumulate_gradients(
    engine: Engine, embedder: Embedder, batch: ContrastiveBatch, config: ContrastiveConfig
) -> tuple[float, float]:
    """The loss of the global batch and the share of profiles nearest to their target; gradients are left in `engine`.

    Each rank embeds the texts of its share, those that are equal once, in micro-batches, of which one has its graph in
    memory at a time: the loss needs the embeddings alone, and its gradient at them is all that a micro-batch needs
    when it is embedded again with a graph (Gao et al., Scaling deep contrastive learning batch size under memory
    limited setup, RepL4NLP 2021). The last to be embedded keeps its graph. So a batch that fits into one micro-batch is
    embedded once, and a larger one costs up to one forward pass more, a third of the time, whatever its size.

    The embeddings of other ranks arrive without a graph, and every rank computes the same loss over the whole batch.
    What flows back into a rank is the gradient of that loss at its own rows, so the sum over ranks is the gradient of
    the global loss, negatives on other ranks included, whatever the world size.
    """
    own = shard(batch.profiles)
    texts, text_of_row = _distinct([*embedder.as_queries(batch.profiles[own]), *batch.item_texts[own]])
    tokens = embedder.tokens(texts)
    first, *others = _as_many_on_every_rank(embedder.batches(tokens, config.micro_batch_tokens))

    def embed(part: list[int]) -> Tensor:
        return embedder.embed(engine, [tokens[text] for text in part])

    with torch.no_grad():
        without_graph = [embed(part) for part in others]
    with_graph = embed(first)
    embeddings = with_graph.new_empty(len(texts), embedder.dim)
    for part, embedded in zip((first, *others), (with_graph, *without_graph), strict=True):
        embeddings[part] = embedded.detach()

    profiles_BD, items_BD = (gather_rows(side).requires_grad_() for side in embeddings[text_of_row].chunk(2))
    targets = batch.targets.to(profiles_BD.device)
    log_share = None if batch.log_share is None else batch.log_share.to(profiles_BD.device)
    loss = info_nce(profiles_BD, items_BD, targets, config.temperature, log_share)
    at_rows = torch.cat([grad[own] for grad in torch.autograd.grad(loss, (profiles_BD, items_BD))])
    at_texts = torch.zeros_like(embeddings).index_add_(0, text_of_row.to(at_rows.device), at_rows)
    at_texts /= torch.bincount(torch.tensor([*first, *chain(*others)]))[:, None].to(at_texts.device)

    engine.backward((with_graph * at_texts[first]).sum() * world_size())
    for part in others:
        engine.backward((embed(part) * at_texts[part]).sum() * world_size())
    with torch.no_grad():
        hits = targets[(profiles_BD @ items_BD.T).argmax(1)] == targets
    return loss.item(), hits.float().mean().item()


def target_shares(targets: np.ndarray, num_items: int) -> np.ndarray:
    """Each item's share of all training targets, float64 (num_items,); an item that is none counts as half of one."""
    counts = np.maximum(np.bincount(targets, minlength=num_items), 0.5)
    return counts / len(targets)


def log_target_shares(dataset: Dataset) -> Tensor:
    """The log of each item's share of all training targets, float32 (num_items,), for `ContrastiveBatch.log_share`."""
    targets = dataset.sessions.select("train").targets
    return torch.from_numpy(np.log(target_shares(targets, len(dataset.catalog)))).float()


def _distinct(texts: Sequence[str]) -> tuple[list[str], Tensor]:
    """The texts that differ, in order, and for each row of `texts` which of them it is, int64 (n,)."""
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return list(places), torch.tensor([places[text] for text in texts])


def _as_many_on_every_rank(batches: list[list[int]]) -> list[list[int]]:
    """The micro-batches, split until this rank has as many as the one with most: passes wait for each other.

    A micro-batch of one text is split into two of that text, which share its gradient.
    """
    batches = list(batches)
    for _ in range(max(gather_objects(len(batches))) - len(batches)):
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        half = len(batches[largest]) // 2
        batches[largest : largest + 1] = batches[largest][: half or 1], batches[largest][half:]
    return batches
