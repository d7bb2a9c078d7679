"""What LightGCN and MCL share: the graph of users and items, vectors spread over it, and the vectors of new users.

The graph has a node for each user and each item, users first, and an edge for each item that a user chose. Every node
learns a vector, its layer 0. Layer l + 1 of a node is the sum of layer l over its neighbours, each divided by
sqrt(degree of the node * degree of the neighbour), and the vector of a node is a weighted sum of its layers 0 to L
(LightGCN, He et al., SIGIR 2020, section 3.1).

A session is ranked by its history alone, as a new user would be: users of test may never occur in training. A new node
that is joined to the history's items receives the layers 1 to L by the same rule, from the items' layers 0 to L - 1 as
they were trained. It has no layer 0, as nobody trained one: that term is zero, the mean of what a layer 0 starts from.
The items' vectors and degrees stay as they are. For a user of the graph whose history is all the user's items, this is
the library's own vector without its term of layer 0.
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from scipy.sparse import csr_array

from langptune_rs import evaluate
from langptune_rs.baselines.epochs import Epochs, train_epochs, unfinished
from langptune_rs.baselines.interactions import histories_as_rows, user_items
from langptune_rs.baselines.method import VectorMethod
from langptune_rs.config.section import Section
from langptune_rs.data import Dataset, Sessions
from langptune_rs.errors import DataError, TrainingError
from langptune_rs.seeds import derive_seed, generator

METRIC = "ndcg@20"
"""The validation score that decides when to stop, the paper's first metric (Tables 1 and 2)."""
_FILES = "items.npy", "messages.npy", "user_length.npy"
_COLUMNS = 64
"""Dimensions that are spread together. The nodes of ML-100K then stay in a core's cache: 22 ms for 512 dimensions and
three layers on one core, against 32 ms for all of them at once."""


class GraphConfig(Section):
    """What the graph methods have in common."""

    dim: PositiveInt = 512
    """Numbers in a vector (appendix C)."""
    num_layers: PositiveInt = 3
    """L, how far vectors spread (appendix C). A new user has no layer 0, and so needs another."""
    learning_rate: PositiveFloat = 1e-3
    """Of Adam (appendix C)."""
    weight_decay: NonNegativeFloat = 1e-4
    """The weight of the squared norms of a batch's layer 0. The paper gives none: the default of torch_geometric, of
    LightGCN's code and of MCL's code alike."""
    max_epochs: PositiveInt = 1000
    """The paper gives none: the default of LightGCN's code and of MCL's code."""
    patience: PositiveInt = 20
    """Epochs without a better validation score after which training ends. Neither the paper nor that code stops early:
    a choice of this project."""
    score_every: PositiveInt = 1
    """Epochs between two validation scores."""


class Graph:
    """Who chose what: U users, I items, E edges."""

    def __init__(self, chosen: csr_array) -> None:
        """`chosen` is 1 where a user chose an item, (U, I), as `user_items` makes it."""
        self.num_users, self.num_items = chosen.shape
        chosen = chosen.sorted_indices()
        self._starts = chosen.indptr.astype(np.int64)
        self._degrees = np.diff(self._starts)
        self.users = np.repeat(np.arange(self.num_users), self._degrees)
        """The user of each edge, ascending, int64 (E,)."""
        self.items = chosen.indices.astype(np.int64)
        """The item of each edge, ascending within a user, int64 (E,)."""
        self.item_degrees = np.bincount(self.items, minlength=self.num_items)
        """How many users chose each item, int64 (I,)."""
        # Items below each edge's item that its user did not choose: they count up within a user, and so do the keys.
        below = self.items - (np.arange(len(self.items)) - self._starts[self.users])
        self._keys = self.users * self.num_items + below

    def edges_of(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers of all edges of these users, user by user, int64."""
        return np.concatenate([np.arange(self._starts[user], self._starts[user + 1]) for user in users])

    @property
    def learnable(self) -> NDArray[np.int64]:
        """The users who have both chosen an item and left one, ascending, int64. Others have no pair to compare."""
        return np.flatnonzero((self._degrees > 0) & (self._degrees < self.num_items))

    def draw_unchosen(self, users: NDArray[np.int64], number: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """Items that each user did not choose, uniform and with repetition, int64 (len(users), number).

        The r-th unchosen item of a user is r plus the number of the user's chosen items below it, so nothing is drawn
        twice over. `users` are among `learnable`.
        """
        draws = rng.integers(0, self.num_items - self._degrees[users][:, None], size=(len(users), number))
        edges_before = np.searchsorted(self._keys, users[:, None] * self.num_items + draws, side="right")
        chosen_below: NDArray[np.int64] = edges_before - self._starts[users][:, None]
        return draws + chosen_below

    def adjacency(self) -> torch.Tensor:
        """The adjacency with each edge divided by the roots of its degrees, sparse CSR float32 (U + I, U + I)."""
        num_nodes = self.num_users + self.num_items
        ends = np.concatenate([self.users, self.items + self.num_users])
        others = np.concatenate([self.items + self.num_users, self.users])
        degrees = np.bincount(ends, minlength=num_nodes)
        values = 1.0 / np.sqrt(degrees[ends].astype(np.float64) * degrees[others])
        matrix = csr_array((values.astype(np.float32), (ends, others)), shape=(num_nodes, num_nodes))
        with warnings.catch_warnings():  # "Sparse CSR tensor support is in beta state": a product is all that it does
            warnings.filterwarnings("ignore", "Sparse CSR tensor support", UserWarning)
            return torch.sparse_csr_tensor(
                torch.from_numpy(matrix.indptr.astype(np.int32)),
                torch.from_numpy(matrix.indices.astype(np.int32)),
                torch.from_numpy(matrix.data),
                size=matrix.shape,
                check_invariants=True,
            )


def make_model(num_nodes: int, config: GraphConfig, alpha: float | None, seed: int) -> Any:
    """torch_geometric's LightGCN, with its own initial vectors.

    `alpha` weighs every layer; None gives their mean.
    """
    with warnings.catch_warnings():  # it compiles with torch.jit.script as it is imported, which torch deprecates
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated")
        from torch_geometric.nn.models import LightGCN
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LightGCN(num_nodes, config.dim, config.num_layers, alpha)


def spread(model: Any, adjacency: torch.Tensor) -> torch.Tensor:
    """The vectors of all nodes, float32 (U + I, dim): what `model.get_embedding` computes from the edges.

    A sparse product takes a twentieth of the time of the library's messages: 0.12 s against 2.8 s of one core, forward
    and backward, on the 89,000 edges of ML-100K at dimension 512.
    """
    return cast("torch.Tensor", _WeightedLayers.apply(model.embedding.weight, adjacency, model.alpha.tolist()))


def _weighted_layers(rows: torch.Tensor, adjacency: torch.Tensor, weights: list[float]) -> torch.Tensor:
    """The sum over l of weights[l] * adjacency^l @ rows, (N, dim)."""
    totals = []
    for columns in torch.split(rows, _COLUMNS, dim=1):
        layer = columns.contiguous()
        total = weights[0] * layer
        for weight in weights[1:]:
            layer = adjacency @ layer
            total.add_(layer, alpha=weight)
        totals.append(total)
    return torch.cat(totals, dim=1)


class _WeightedLayers(torch.autograd.Function):
    """`_weighted_layers` with its gradient: the adjacency is symmetric, so the gradient spreads by the same rule.

    torch would transpose the matrix in every backward pass, for nearly twice the time.
    """

    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, adjacency: torch.Tensor, weights: list[float]) -> torch.Tensor:
        ctx.adjacency, ctx.weights = adjacency, weights
        return _weighted_layers(rows, adjacency, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return _weighted_layers(gradients[0], ctx.adjacency, ctx.weights), None, None


def take_rows(rows: torch.Tensor, numbers: NDArray[np.int64]) -> torch.Tensor:
    """`rows[numbers]`, (*numbers.shape, dim), whose gradient adds up in one order for any number of threads."""
    return torch.nn.functional.embedding(torch.from_numpy(numbers), rows)


@dataclass(frozen=True)
class ItemRows:
    """What is left of a trained graph: all that ranks sessions."""

    items: NDArray[np.float32]
    """The vector of each item, (I, dim)."""
    messages: NDArray[np.float32]
    """What each item adds to a user who has chosen it alone, (I, dim): see `item_messages`."""
    user_length: NDArray[np.float32]
    """The mean length of the graph's users' vectors, ()."""

    @classmethod
    def of(cls, model: Any, graph: Graph, adjacency: torch.Tensor) -> Self:
        """Those of a model as it is now."""
        with torch.no_grad():
            vectors = spread(model, adjacency).numpy()
        user_length = np.linalg.norm(vectors[: graph.num_users], axis=1).mean(dtype=np.float32)
        return cls(vectors[graph.num_users :], item_messages(model, graph, adjacency), np.asarray(user_length))

    def user_vectors(self, histories: NDArray[np.int32]) -> NDArray[np.float32]:
        """The vectors of new users who chose the histories' items, float32 (N, dim); an item counts once.

        The sum of the items' messages, divided by the root of the number of items.
        """
        chosen = histories_as_rows(histories, len(self.messages))
        roots = np.sqrt(np.diff(chosen.indptr)).astype(np.float32)
        return cast("NDArray[np.float32]", (chosen @ self.messages) / roots[:, None])


def item_messages(model: Any, graph: Graph, adjacency: torch.Tensor) -> NDArray[np.float32]:
    """What each item adds to a user who has chosen it alone, float32 (I, dim).

    The layers 0 to L - 1 of the item, weighted as the layers 1 to L of the user are, divided by the root of the item's
    degree.
    """
    with torch.no_grad():
        layers = _weighted_layers(model.embedding.weight, adjacency, model.alpha.tolist()[1:])[graph.num_users :]
    roots = np.sqrt(np.maximum(graph.item_degrees, 1)).astype(np.float32)
    return cast("NDArray[np.float32]", layers.numpy() / roots[:, None])


class GraphMethod(VectorMethod):
    """A method that learns vectors on the graph of the interactions and ranks a session as a new user.

    A subclass says what a batch is and what its loss is, in `losses`.
    """

    grid: ClassVar[Mapping[str, Sequence[object]]] = {"num_layers": (1, 3)}
    """The paper's 3 layers, and 1: how far to spread depends on how dense the data are."""
    stops_on_validation = True
    learns_from_histories = True
    layer_weight: ClassVar[float | None] = None
    """The weight of each layer. None: their mean."""

    def __init__(self, rows: ItemRows | None = None) -> None:
        self._learned = rows
        self.epochs: Epochs | None = None
        """What training has shown; None for a method that was opened."""
        self._unfinished = ""

    @abstractmethod
    def losses(
        self, model: Any, graph: Graph, adjacency: torch.Tensor, config: Any, rng: np.random.Generator
    ) -> Iterator[torch.Tensor]:
        """The loss of each batch of one epoch, computed with the weights of that moment."""

    @property
    def rows(self) -> ItemRows:
        """What was learned."""
        assert self._learned is not None, "fit or open comes first"
        return self._learned

    def fit(self, dataset: Dataset, config: GraphConfig, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`.

        Raises `DataError` without validation sessions, which decide when to stop, and when no user has left an item,
        and `TrainingError` when the loss is no number.
        """
        validation = dataset.sessions.select("validation")
        graph = Graph(user_items(dataset))
        if not len(graph.learnable):
            raise DataError(
                f"{self.name} learns which items a user chose and which not, but every user of this data set chose all "
                f"its {graph.num_items} items. Prepare the data with more items or with fewer per user."
            )
        adjacency = graph.adjacency()
        model = make_model(
            graph.num_users + graph.num_items, config, self.layer_weight, derive_seed(seed, self.name, "weights")
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)

        def run_epoch(epoch: int) -> float:
            values = []
            for loss in self.losses(model, graph, adjacency, config, generator(seed, self.name, "epoch", epoch)):
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimizer.step()
                values.append(loss.item())
            if unusable := [value for value in values if not np.isfinite(value)]:
                raise TrainingError(
                    f"The loss of {self.name} is {unusable[0]} in epoch {epoch + 1}. Choose a learning_rate below "
                    f"{config.learning_rate}."
                )
            return float(np.mean(values))

        def score() -> float:
            ranking = type(self)(ItemRows.of(model, graph, adjacency))
            return evaluate(ranking.score_targets(validation).ranks[:, 0], [METRIC]).mean[METRIC]

        self.epochs = train_epochs(
            model,
            optimizer,
            run_epoch,
            score,
            name=self.name,
            max_epochs=config.max_epochs,
            patience=config.patience,
            score_every=config.score_every,
            seed=seed,
            checkpoint=checkpoint,
        )
        self._learned = ItemRows.of(model, graph, adjacency)
        self._unfinished = unfinished(self.epochs, config)

    @property
    def unfinished(self) -> str:
        """See `Method.unfinished`."""
        return self._unfinished

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """See `VectorMethod.item_vectors`."""
        return self.rows.items

    def session_vectors(self, sessions: Sessions) -> NDArray[np.float32]:
        """See `VectorMethod.session_vectors`: each session as a new user."""
        return self.rows.user_vectors(sessions.histories)

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        for name, array in zip(_FILES, (self.rows.items, self.rows.messages, self.rows.user_length), strict=True):
            np.save(folder / name, array, allow_pickle=False)

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`. Raises `DataError` for a data set with another number of items."""
        rows = ItemRows(*(np.load(folder / name, allow_pickle=False) for name in _FILES))
        if len(rows.items) != len(dataset.catalog):
            raise DataError(
                f"{cls.name} in {folder} was fitted to {len(rows.items)} items, but this data set has "
                f"{len(dataset.catalog)}. Open it with the data set that it was fitted to, or fit it again."
            )
        return cls(rows)
