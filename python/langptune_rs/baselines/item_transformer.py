"""What BERT4Rec, LLM2BERT4Rec and SASRec share: a transformer over the items of a session, and how it is trained.

All sessions of a data set have histories of one length H, so their items stand in one array of H + 1 columns. The
target of a validation or test session is unknown there. Nothing is padded.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from langptune_rs import evaluate
from langptune_rs.baselines.epochs import Epochs, train_epochs, unfinished
from langptune_rs.baselines.interactions import item_sequences
from langptune_rs.baselines.method import VectorMethod
from langptune_rs.config.section import Section
from langptune_rs.data import Dataset, Sessions
from langptune_rs.errors import DataError, TrainingError
from langptune_rs.files import write_text
from langptune_rs.seeds import derive_seed, generator

UNKNOWN = -100
"""Stands for an item that is not known, and marks a place of which nothing is predicted."""
INITIAL_SPREAD = 0.02
"""Standard deviation of the weights at the start: BERT's, and of most of its kin."""

_WEIGHTS, _SETTINGS = "weights.safetensors", "settings.json"
_METRIC = "ndcg@20"
_SESSIONS_PER_BLOCK = 1024


class ItemTransformerConfig(Section):
    """A transformer over the items of a session, and how it is trained."""

    hidden: PositiveInt
    """Dimension of the items and of the hidden states; a multiple of `num_heads`."""
    num_blocks: PositiveInt = 2
    """Transformer blocks (appendix C, and the papers of BERT4Rec and SASRec)."""
    num_heads: PositiveInt
    """Attention heads in each block."""
    dropout: Annotated[float, Field(ge=0, lt=1)]
    """Probability of dropping a number, wherever the architecture drops any."""
    batch_size: PositiveInt = 128
    """Sessions in a step (appendix C, and the papers of SASRec)."""
    learning_rate: PositiveFloat = 1e-3
    """Adam's, at the start (appendix C, and the paper of SASRec)."""
    max_epochs: PositiveInt
    """Epochs at most, if validation never stops improving."""
    patience: PositiveInt
    """Epochs without a better NDCG@20 on validation after which training stops."""

    @model_validator(mode="after")
    def _heads_share_the_dimensions(self) -> Self:
        if self.hidden % self.num_heads:
            raise ValueError(
                f"hidden = {self.hidden} does not divide into num_heads = {self.num_heads} equal parts. "
                "Choose a multiple of num_heads."
            )
        return self

    def learning_rate_in(self, epoch: int) -> float:
        """The learning rate of an epoch, counted from 0."""
        return self.learning_rate


class ItemNetwork(nn.Module):
    """Predicts items at places of sequences, by the dot product of a vector for the place and one for the item."""

    @abstractmethod
    def states(self, inputs_BL: Tensor) -> Tensor:
        """What the transformer makes of input tokens, int64 (B, L): hidden states, float32 (B, L, hidden)."""

    def states_at(self, inputs_BL: Tensor, places_BL: Tensor) -> Tensor:
        """The `states` of the places that are true, bool (B, L), in the order of the rows: (N, hidden)."""
        return self.states(inputs_BL)[places_BL]

    @abstractmethod
    def queries(self, states_NH: Tensor) -> Tensor:
        """The vectors that are compared with the items', (N, dim), of the hidden states (N, hidden) of N places."""

    @abstractmethod
    def items(self) -> Tensor:
        """The vectors of all items, (n_items, dim)."""

    def loss(self, inputs_BL: Tensor, labels_BL: Tensor) -> Tensor:
        """Cross-entropy over the whole catalog, summed over the places whose label, int64 (B, L), is not `UNKNOWN`."""
        predicted = labels_BL != UNKNOWN
        logits_NV = self.queries(self.states_at(inputs_BL, predicted)) @ self.items().T
        return nn.functional.cross_entropy(logits_NV, labels_BL[predicted], reduction="sum")

    def next_items(self, inputs_BL: Tensor) -> Tensor:
        """The query of each sequence's last place, (B, dim)."""
        return self.queries(self.states(inputs_BL)[:, -1])


def with_one(vectors: Tensor) -> Tensor:
    """Vectors (N, dim) with a 1 after each, (N, dim + 1), so that the dot product with an item's adds its bias."""
    return torch.cat([vectors, vectors.new_ones(len(vectors), 1)], dim=1)


def sequence_rows(dataset: Dataset) -> NDArray[np.int64]:
    """The items of every session, oldest first, int64 (n_sessions, H + 1); `UNKNOWN` for a held-out target."""
    rows = np.full((len(dataset.sessions), dataset.sessions.histories.shape[1] + 1), UNKNOWN, dtype=np.int64)
    for row, items in zip(rows, item_sequences(dataset), strict=True):
        row[: len(items)] = items
    return rows


class ItemTransformer(VectorMethod):
    """A method that learns an `ItemNetwork` from the items of sessions.

    It keeps the weights whose NDCG@20 on validation is best, see `train_epochs`.
    """

    Config: ClassVar[type[ItemTransformerConfig]]
    stops_on_validation = True
    learns_from_histories = True

    def __init__(self, config: Any = None, network: ItemNetwork | None = None, epochs: Epochs | None = None):
        """`config` is a `Config`, and `epochs` is what training has shown."""
        self._config, self._network, self.epochs = config, network, epochs

    @abstractmethod
    def make_network(self, config: Any, dataset: Dataset) -> ItemNetwork:
        """A network for the data set's items and length of histories, its weights drawn by torch's generator."""

    def start_network(self, network: ItemNetwork, config: Any, dataset: Dataset) -> None:
        """Change the weights of a new `network` to those that training starts from. Those drawn, unless overridden."""

    @abstractmethod
    def examples(
        self, rows: NDArray[np.int64], config: Any, draws: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(inputs, labels) of an epoch, int64 (n, L) each, made of n `sequence_rows`."""

    @abstractmethod
    def inputs_of(self, histories: NDArray[np.int64]) -> NDArray[np.int64]:
        """Input tokens, int64 (N, L), whose last place predicts what follows histories, int64 (N, H)."""

    def fit(self, dataset: Dataset, config: Any, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`.

        Raises `DataError` for data without validation sessions, and `TrainingError` when the loss is no number.
        """
        validation = dataset.sessions.select("validation")
        rows = sequence_rows(dataset)
        network = self._new_network(config, dataset, seed)
        self.start_network(network, config, dataset)
        self._config, self._network = config, network
        optimizer = torch.optim.Adam(network.parameters(), lr=config.learning_rate, fused=True)

        def score() -> float:
            return evaluate(self.score_targets(validation).ranks[:, 0], [_METRIC]).mean[_METRIC]

        self.epochs = train_epochs(
            network,
            optimizer,
            partial(self._run_epoch, optimizer, rows, seed),
            score,
            name=self.name,
            max_epochs=config.max_epochs,
            patience=config.patience,
            score_every=1,
            seed=seed,
            checkpoint=checkpoint,
        )

    def _new_network(self, config: Any, dataset: Dataset, seed: int) -> ItemNetwork:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, self.name, "weights"))
            return self.make_network(config, dataset).to("cuda" if torch.cuda.is_available() else "cpu")

    def _run_epoch(self, optimizer: torch.optim.Optimizer, rows: NDArray[np.int64], seed: int, epoch: int) -> float:
        """One step for each batch of sessions, in a new order; the mean loss of a prediction."""
        network, config = self.network, self._config
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate_in(epoch)
        draws = generator(seed, self.name, "epoch", epoch)
        inputs, labels = map(self._tensor, self.examples(draws.permutation(rows), config, draws))
        total = 0.0
        for batch in range(0, len(rows), config.batch_size):
            of_batch = slice(batch, batch + config.batch_size)
            loss = network.loss(inputs[of_batch], labels[of_batch])
            optimizer.zero_grad()
            mean = loss / (labels[of_batch] != UNKNOWN).sum().clamp(min=1)
            mean.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            total += loss.item()
        if not np.isfinite(total):
            raise TrainingError(
                f"The loss of {self.name} is {total} in epoch {epoch + 1}. Choose a learning_rate below "
                f"{config.learning_rate}."
            )
        return total / int((labels != UNKNOWN).sum())

    @property
    def unfinished(self) -> str:
        """See `Method.unfinished`."""
        return unfinished(self.epochs, self._config) if self.epochs else ""

    @property
    def network(self) -> ItemNetwork:
        """What was learned."""
        assert self._network is not None, "fit or open comes first"
        return self._network

    def _tensor(self, tokens: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(tokens).to(next(self.network.parameters()).device)

    @property
    @torch.no_grad()
    def item_vectors(self) -> NDArray[np.float32]:
        """See `VectorMethod.item_vectors`."""
        return self.network.items().cpu().numpy()

    @torch.no_grad()
    def session_vectors(self, sessions: Sessions) -> NDArray[np.float32]:
        """See `VectorMethod.session_vectors`."""
        inputs = self._tensor(self.inputs_of(sessions.histories.astype(np.int64)))
        blocks = [self.network.next_items(block) for block in torch.split(inputs, _SESSIONS_PER_BLOCK)]
        return torch.cat(blocks).cpu().numpy()

    def save(self, folder: Path) -> None:
        """See `Method.save`."""
        from safetensors.torch import save_model

        save_model(self.network, str(folder / _WEIGHTS))
        write_text(folder / _SETTINGS, self._config.model_dump_json() + "\n")

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`. Raises `DataError` for a data set of another size."""
        from safetensors.torch import load_model

        config = cls.Config.model_validate_json((folder / _SETTINGS).read_text(encoding="utf-8"))
        method = cls(config)
        network = method._new_network(config, dataset, seed=0)
        try:
            load_model(network, folder / _WEIGHTS)
        except RuntimeError as error:
            raise DataError(
                f"{folder} was fitted to a data set of another size than this one, which has {len(dataset.catalog)} "
                f"items and histories of {dataset.sessions.histories.shape[1]}. Pass the data set that it was fitted "
                "to, or fit again."
            ) from error
        method._network = network.eval()
        return method
