"""Contrastive training of the embedder: profiles against the items their users chose next (section 3.2, Eq. 7)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from langptune_rs.config.contrastive import ContrastiveStepConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.distributed.collectives import gather_objects, gather_rows, shard, world_size
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.embedder_prompts import Prompted
from langptune_rs.training.engines import Engine, optimizer_step, set_learning_rate


def info_nce(
    profiles_BD: Tensor, items_BD: Tensor, targets_B: Tensor, temperature: float, log_share_B: Tensor | None = None
) -> Tensor:
    """InfoNCE of Eq. 7, the mean over the batch, a float32 scalar.

    Row b of `items_BD` is the positive of profile b and a negative of all other profiles. Where two profiles share a
    target (`targets_B`, item indexes) the item cannot be both, so that entry is masked.

    A popular item is a negative as often as it is popular, which teaches the embedder to rank it low. Subtracting
    `log_share_B`, the log of each target's share of all training targets, from the logits corrects that (Yi et al.,
    Sampling-bias-corrected neural modeling for large corpus item recommendations, RecSys 2019).
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
    """The global batch, the same on every rank: B profiles, each with its target's text and index."""

    profiles: Sequence[str]
    item_texts: Sequence[str]
    targets: Tensor
    """Item indexes, int64 (B,)."""
    log_share: Tensor | None = None
    """The popularity correction of `info_nce`, float32 (B,)."""


def contrastive_batch(
    dataset: Dataset,
    sessions: Sessions,
    rows: NDArray[np.int64],
    texts: Sequence[str],
    log_shares: Tensor | None = None,
) -> ContrastiveBatch:
    """The `texts` of the sessions at `rows`, with their targets. `log_shares` are those of `log_target_shares`."""
    items = sessions.targets[rows]
    targets = torch.from_numpy(items).long()
    return ContrastiveBatch(
        texts,
        [dataset.catalog.texts[item] for item in items],
        targets,
        None if log_shares is None else log_shares[targets],
    )


def contrastive_step(
    engine: Engine, embedder: Embedder, batch: ContrastiveBatch, config: ContrastiveStepConfig, learning_rate: float
) -> dict[str, float]:
    """One optimizer step over the global batch; returns what to log."""
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
    engine: Engine, embedder: Embedder, batch: ContrastiveBatch, config: ContrastiveStepConfig
) -> tuple[float, float]:
    """The loss of the global batch and the share of profiles nearest to their target; gradients are left in `engine`.

    Each rank embeds the distinct texts of its share in micro-batches, with the graph of only one in memory at a time.
    The loss needs just the embeddings. Its gradient at them is all that a micro-batch needs when it is embedded again
    with a graph (Gao et al., Scaling deep contrastive learning batch size under memory limited setup, RepL4NLP 2021).
    The last to be embedded keeps its graph. So a batch that fits into one micro-batch is embedded once; a larger one,
    of any size, costs up to one more forward pass, a third of the time.

    The embeddings of other ranks arrive without a graph, and every rank computes the same loss over the whole batch.
    Each rank propagates the gradient of that loss at its own rows. The sum over ranks is the gradient of the global
    loss, including the negatives on other ranks, for any world size.
    """
    own = shard(batch.profiles)
    texts, text_of_row = _distinct([*embedder.queries(batch.profiles[own]), *embedder.items(batch.item_texts[own])])
    tokens = embedder.read(texts)
    first, *others = _equally_many(embedder.batches(tokens, config.micro_batch_tokens))

    def embed(part: list[int]) -> Tensor:
        return embedder.embed(engine, [tokens[text] for text in part])

    with torch.no_grad():
        without_graph = [embed(part) for part in others]
    with_graph = embed(first)
    embeddings = with_graph.new_empty(len(texts), with_graph.shape[1])
    for part, embedded in zip((first, *others), (with_graph, *without_graph), strict=True):
        embeddings[part] = embedded.detach()

    profiles_BD, items_BD = (gather_rows(side).requires_grad_() for side in embeddings[text_of_row].chunk(2))
    targets = batch.targets.to(profiles_BD.device)
    log_share = None if batch.log_share is None else batch.log_share.to(profiles_BD.device)
    loss = info_nce(profiles_BD, items_BD, targets, config.temperature, log_share)
    row_grads = torch.cat([grad[own] for grad in torch.autograd.grad(loss, (profiles_BD, items_BD))])
    text_grads = torch.zeros_like(embeddings).index_add_(0, text_of_row.to(row_grads.device), row_grads)
    text_grads /= torch.bincount(torch.tensor([*first, *chain(*others)]))[:, None].to(text_grads.device)

    engine.backward((with_graph * text_grads[first]).sum() * world_size())
    for part in others:
        engine.backward((embed(part) * text_grads[part]).sum() * world_size())
    with torch.no_grad():
        hits = targets[(profiles_BD @ items_BD.T).argmax(1)] == targets
    return loss.item(), hits.float().mean().item()


def target_shares(targets: NDArray[np.int64], num_items: int) -> NDArray[np.float64]:
    """Each item's share of all training targets, float64 (num_items,); an item that is no target counts as half one."""
    counts: NDArray[np.float64] = np.maximum(np.bincount(targets, minlength=num_items), 0.5)
    return counts / len(targets)


def log_target_shares(dataset: Dataset) -> Tensor:
    """The log of each item's share of all training targets, float32 (num_items,), for `ContrastiveBatch.log_share`."""
    targets = dataset.sessions.select("train").targets
    return torch.from_numpy(np.log(target_shares(targets, len(dataset.catalog)))).float()


def _distinct(texts: Sequence[Prompted]) -> tuple[list[Prompted], Tensor]:
    """The distinct texts, in order, and the place among them of each of the n `texts`, int64 (n,)."""
    places = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return list(places), torch.tensor([places[text] for text in texts])


def _equally_many(batches: list[list[int]]) -> list[list[int]]:
    """The micro-batches, split until every rank has as many as the one with most, since their passes synchronize.

    A micro-batch of one text becomes two of that text, which share its gradient.
    """
    batches = list(batches)
    for _ in range(max(gather_objects(len(batches))) - len(batches)):
        largest = max(range(len(batches)), key=lambda i: len(batches[i]))
        half = len(batches[largest]) // 2
        batches[largest : largest + 1] = batches[largest][: half or 1], batches[largest][half:]
    return batches
