"""MCL: LightGCN's graph, learned by the mixed-centric loss over mined samples (section 4.2).

Gao et al., "MCL: Mixed-Centric Loss for Collaborative Filtering", WWW 2022. What is here follows the formulas of the
paper as others restate them (mining by min and max with a margin epsilon, loss by two logarithms of sums), and the code
of its authors (github.com/layer6ai-labs/MCL, `code/model.py`, `utils.py`, `parse.py`) for what they leave open:

- the distance E is the squared Euclidean distance, in the loss as in the ranking;
- a node's vector is the sum of its layers, not their mean, which the offsets of the loss are tuned to;
- a batch is of users, with all their items, so "batch size 1000" (appendix C) is 1,000 users;
- the negatives of a user are drawn anew for each of the user's items, 10 for each, with repetition;
- the margin is 1, the weight of the squared norms 1e-4, there are 1,000 epochs at most, and each tenth is scored.

The weights and offsets of appendix C are those that the authors give for two Amazon data sets (README.md there). The
paper itself could not be read here: its equations are not cited by number, and whether it squares the distance is not
known.

Two things differ from the code of the authors. It leaves out the last users of an epoch where they do not fill a batch,
which is everybody in a data set of fewer than 1,000 users; here the last batch is smaller, and m is its own number of
users. And it draws the initial vectors of users and of items in two tables; here they are torch_geometric's one table.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from langptune_rs.baselines.graph import Graph, GraphConfig, GraphMethod, spread, take_rows
from langptune_rs.data import Sessions


class MCLConfig(GraphConfig):
    """Settings of MCL."""

    batch_size: PositiveInt = 1000
    """Users in a batch, each with all the items chosen (appendix C, and the authors' code for what is counted)."""
    num_negatives: PositiveInt = 10
    """Items that the user did not choose, for each item chosen (appendix C)."""
    alpha: PositiveFloat = 1.25
    """How much the farthest of the chosen items weigh above the others (appendix C)."""
    beta: PositiveFloat = 5.0
    """How much the nearest of the other items weigh above the others (appendix C)."""
    lambda_p: float = 6.5
    """Added to the distances of chosen items (appendix C)."""
    lambda_n: float = -0.5
    """Added to the distances of other items (appendix C)."""
    margin: NonNegativeFloat = 1.0
    """epsilon of the mining. The paper gives none: the default of the authors' code."""
    patience: PositiveInt = 100
    """Epochs without a better validation score after which training ends: ten times as many as between two scores. An
    epoch is few steps, one for each 1,000 users."""
    score_every: PositiveInt = 10
    """Epochs between two validation scores, as in the authors' code."""


class MCL(GraphMethod):
    """Ranks by the squared distance of a user's and an item's sum over the layers; the nearest ranks first."""

    name = "MCL"
    Config = MCLConfig
    layer_weight = 1.0

    def losses(
        self, model: Any, graph: Graph, adjacency: torch.Tensor, config: MCLConfig, rng: np.random.Generator
    ) -> Iterator[torch.Tensor]:
        """See `GraphMethod.losses`: every user once, in random order."""
        users = rng.permutation(graph.learnable)
        for start in range(0, len(users), config.batch_size):
            batch = users[start : start + config.batch_size]
            edges = graph.edges_of(batch)
            unchosen = graph.draw_unchosen(graph.users[edges], config.num_negatives, rng)
            samples = tables(graph, edges, unchosen)
            vectors, nodes = spread(model, adjacency), samples.items + graph.num_users
            distances = squared_distances(take_rows(vectors, batch), take_rows(vectors, nodes))
            loss = mixed_centric_loss(distances, samples.chosen, samples.num_drawn, config)
            yield loss + config.weight_decay * half_squared_norms(
                take_rows(model.embedding.weight, batch), take_rows(model.embedding.weight, nodes), samples
            )

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """The vector v of each item and -|v|^2 / 2, float32 (n_items, dim + 1)."""
        items = self.rows.items
        return np.concatenate([items, -0.5 * (items * items).sum(axis=1, keepdims=True)], axis=1)

    def session_vectors(self, sessions: Sessions) -> NDArray[np.float32]:
        """The vector u of each session as a new user, at the length of a trained one, and 1, float32 (N, dim + 1).

        The dot product u . v - |v|^2 / 2 is (|u|^2 - |u - v|^2) / 2: it orders items by their distance. Distances
        depend on the length of u, as dot products do not. A new user has no layer 0 and fewer items than a trained one,
        so that its vector is far shorter, and the items nearest to it are those nearest to zero. The missing layer
        points where the others do (a cosine of 0.70 among the users of ML-100K), so u is brought to the mean length of
        the graph's users. On the validation sessions of ML-100K, after 70 epochs, that makes NDCG@20 0.078, and without
        it it is 0.038.
        """
        users = super().session_vectors(sessions)
        lengths = np.linalg.norm(users, axis=1, keepdims=True)
        users = users * (self.rows.user_length / np.maximum(lengths, np.finfo(np.float32).tiny))
        return np.concatenate([users, np.ones((len(users), 1), dtype=np.float32)], axis=1)


class Samples(NamedTuple):
    """The samples of m users as tables over the n items that occur among them."""

    items: NDArray[np.int64]
    """The n items, ascending."""
    chosen: torch.Tensor
    """Whether the user chose the item, bool (m, n)."""
    num_drawn: torch.Tensor
    """How often the item was drawn for the user, who did not choose it, float32 (m, n)."""


def tables(graph: Graph, edges: NDArray[np.int64], unchosen: NDArray[np.int64]) -> Samples:
    """The samples of users, whose edges these are, user by user, with K items drawn for each edge, (E, K).

    Tables suit the loss: a user with 100 items has 1,000 draws, and the distance to each of the n items is computed
    once, by one matrix product. They hold m * n numbers, where n is at most the number of draws.
    """
    users, chosen_items = graph.users[edges], graph.items[edges]
    rows = np.cumsum(np.diff(users, prepend=users[:1]) != 0)
    occurs = np.zeros(graph.num_items, dtype=bool)
    occurs[chosen_items] = occurs[unchosen] = True
    items, columns = np.flatnonzero(occurs), np.cumsum(occurs) - 1
    shape = int(rows[-1]) + 1, len(items)
    chosen = np.zeros(shape, dtype=bool)
    chosen[rows, columns[chosen_items]] = True
    cells = rows[:, None] * len(items) + columns[unchosen]
    num_drawn = np.bincount(cells.ravel(), minlength=shape[0] * shape[1]).astype(np.float32).reshape(shape)
    return Samples(items, torch.from_numpy(chosen), torch.from_numpy(num_drawn))


def squared_distances(users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
    """|u - v|^2 of every user and every item, float32 (m, n)."""
    return (users * users).sum(dim=1)[:, None] + (items * items).sum(dim=1) - 2 * users @ items.T


def mixed_centric_loss(
    distances: torch.Tensor, chosen: torch.Tensor, num_drawn: torch.Tensor, config: MCLConfig
) -> torch.Tensor:
    """The mixed-centric loss of m users over the samples that mining leaves, a scalar.

        1/alpha ln(1 + 1/m sum over u and hard j of exp(alpha (E_uj + lambda_p)))
        + 1/beta ln(1 + 1/m sum over u and hard k of exp(-beta (E_uk + lambda_n)))

    A chosen item j is hard if it is farther than the user's nearest drawn item less the margin, and a drawn item k if
    it is nearer than the user's farthest chosen item and the margin. Nothing is learned through the mining itself.

    Args:
        distances: E, (m, n).
        chosen: bool (m, n), one or more in each row.
        num_drawn: how often an item counts as drawn, (m, n), above 0 for one or more in each row.
    """
    drawn, infinity = num_drawn > 0, float("inf")
    with torch.no_grad():
        nearest = distances.masked_fill(~drawn, infinity).amin(dim=1, keepdim=True)
        farthest = distances.masked_fill(~chosen, -infinity).amax(dim=1, keepdim=True)
        hard_chosen = chosen & (distances > nearest - config.margin)
        hard_drawn = drawn & (distances < farthest + config.margin)
    num_users = len(distances)
    pull = config.alpha * (distances[hard_chosen] + config.lambda_p)
    push = -config.beta * (distances[hard_drawn] + config.lambda_n) + num_drawn[hard_drawn].log()
    return log_one_plus_sum(pull, num_users) / config.alpha + log_one_plus_sum(push, num_users) / config.beta


def log_one_plus_sum(exponents: torch.Tensor, divisor: int) -> torch.Tensor:
    """ln(1 + sum of exp(exponents) / divisor) without overflow, a scalar; 0 for no exponents."""
    return torch.cat([exponents.new_zeros(1), exponents - math.log(divisor)]).logsumexp(dim=0)


def half_squared_norms(users: torch.Tensor, items: torch.Tensor, samples: Samples) -> torch.Tensor:
    """Half the sum of three mean squared norms: of the users and of the items of all choices, and of the drawn items.

    Args:
        users: the users' layer 0, float32 (m, dim).
        items: the items' layer 0, float32 (n, dim).
    """
    chosen, num_drawn = samples.chosen.float(), samples.num_drawn
    of_users, of_items = (users * users).sum(dim=1), (items * items).sum(dim=1)
    of_choices = (chosen.sum(dim=1) @ of_users + chosen.sum(dim=0) @ of_items) / chosen.sum()
    return 0.5 * (of_choices + num_drawn.sum(dim=0) @ of_items / num_drawn.sum())
