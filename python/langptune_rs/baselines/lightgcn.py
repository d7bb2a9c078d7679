"""LightGCN: vectors spread over the graph of users and items, learned by Bayesian personalized ranking (section 4.2).

He et al., "LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation", SIGIR 2020. The model and
the loss are torch_geometric's; `graph` says how a session is ranked whose user is not in the graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import PositiveInt

from langptune_rs.baselines.graph import Graph, GraphConfig, GraphMethod, spread, take_rows


class LightGCNConfig(GraphConfig):
    """Settings of LightGCN."""

    batch_size: PositiveInt = 1000
    """Interactions in a batch (appendix C)."""
    num_negatives: PositiveInt = 1
    """Items that the user did not choose, for each interaction (appendix C)."""


class LightGCN(GraphMethod):
    """Ranks by the dot product of a user's and an item's mean over the layers."""

    name = "LightGCN"
    Config = LightGCNConfig

    def losses(
        self, model: Any, graph: Graph, adjacency: torch.Tensor, config: LightGCNConfig, rng: np.random.Generator
    ) -> Iterator[torch.Tensor]:
        """See `GraphMethod.losses`: every interaction once, in random order."""
        edges = rng.permutation(graph.edges_of(graph.learnable))
        for start in range(0, len(edges), config.batch_size):
            batch = edges[start : start + config.batch_size]
            users = graph.users[batch]
            unchosen = graph.draw_unchosen(users, config.num_negatives, rng)
            items = np.concatenate([graph.items[batch][:, None], unchosen], axis=1) + graph.num_users
            yield bpr_loss(model, spread(model, adjacency), users, items, config.weight_decay)


def bpr_loss(
    model: Any, vectors: torch.Tensor, users: NDArray[np.int64], items: NDArray[np.int64], weight_decay: float
) -> torch.Tensor:
    """The mean of -ln sigmoid(score of the chosen item - score of another), plus the decay, by torch_geometric.

    The decay is `weight_decay` times the squared norm of the layer 0 of all the batch's nodes, each counted once,
    divided by the number of interactions (BPRLoss; LightGCN's Eq. 15, as a mean).

    Args:
        vectors: of all nodes, float32 (U + I, dim).
        users: the user node of each interaction, int64 (B,).
        items: item nodes, int64 (B, 1 + K): the one that the user chose, then K others.
    """
    scores = (take_rows(vectors, users)[:, None] * take_rows(vectors, items)).sum(dim=-1)
    nodes = torch.from_numpy(np.unique(np.concatenate([users, items.ravel()])))
    loss = model.recommendation_loss(scores[:, :1], scores[:, 1:], node_id=nodes, lambda_reg=weight_decay)
    return cast("torch.Tensor", loss)
