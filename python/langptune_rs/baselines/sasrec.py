"""SASRec: a causal transformer predicts each next item of a session (Kang and McAuley, ICDM 2018).

The paper of LangPTune does not compare with it. The loss is the cross-entropy over the whole catalog instead of the
original's one negative item: so trained, SASRec equals or passes BERT4Rec (Klenitskiy and Vasilev, RecSys 2023).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from langptune_rs.baselines.item_transformer import INITIAL_SPREAD, ItemNetwork, ItemTransformer, ItemTransformerConfig
from langptune_rs.data import Dataset


class SasRecConfig(ItemTransformerConfig):
    """SASRec and how it is trained; as Klenitskiy and Vasilev trained it, where nothing else is said."""

    hidden: PositiveInt = 64
    num_heads: PositiveInt = 1
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    max_epochs: PositiveInt = 400
    """A bound that is not meant to be reached; theirs is 100."""
    patience: PositiveInt = 10


class SasRecNetwork(ItemNetwork):
    """Blocks of the paper's equations: x + Dropout(g(LayerNorm(x))), g causal attention, then two layers with a ReLU.

    The embeddings that the blocks read, multiplied by sqrt(hidden), are those that the output is compared with.
    """

    def __init__(self, config: SasRecConfig, num_items: int, length: int):
        """`length` is that of the inputs, H."""
        super().__init__()
        hidden = config.hidden
        self.item_embeddings = nn.Embedding(num_items, hidden)
        self.positions = nn.Embedding(length, hidden)
        self.dropout = nn.Dropout(config.dropout)
        block = nn.TransformerEncoderLayer(
            hidden, config.num_heads, hidden, config.dropout, "relu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(
            block, config.num_blocks, norm=nn.LayerNorm(hidden), enable_nested_tensor=False
        )
        for name, weights in self.named_parameters():
            if weights.ndim > 1:
                nn.init.normal_(weights, std=INITIAL_SPREAD)
            elif name.endswith("bias"):
                nn.init.zeros_(weights)

    def states(self, inputs_BL: Tensor) -> Tensor:
        """See `ItemNetwork.states`."""
        length = inputs_BL.shape[1]
        embedded = self.item_embeddings(inputs_BL) * self.item_embeddings.embedding_dim**0.5
        causal = nn.Transformer.generate_square_subsequent_mask(length, device=inputs_BL.device)
        states: Tensor = self.blocks(
            self.dropout(embedded + self.positions.weight[:length]), mask=causal, is_causal=True
        )
        return states

    def queries(self, states_NH: Tensor) -> Tensor:
        """See `ItemNetwork.queries`: the states themselves."""
        return states_NH

    def items(self) -> Tensor:
        """See `ItemNetwork.items`: the input embeddings."""
        return self.item_embeddings.weight


class SasRec(ItemTransformer):
    """Ranks what the transformer expects after the last item of the history."""

    name = "SASRec"
    Config = SasRecConfig
    grid: ClassVar[Mapping[str, Sequence[object]]] = {"hidden": (64, 256), "dropout": (0.1, 0.5)}
    trial: ClassVar[Mapping[str, object]] = {"max_epochs": 10}

    def make_network(self, config: SasRecConfig, dataset: Dataset) -> SasRecNetwork:
        """See `ItemTransformer.make_network`."""
        return SasRecNetwork(config, len(dataset.catalog), dataset.sessions.histories.shape[1])

    def examples(
        self, rows: NDArray[np.int64], config: SasRecConfig, draws: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See `ItemTransformer.examples`: at every place the next item."""
        return rows[:, :-1], rows[:, 1:]

    def inputs_of(self, histories: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `ItemTransformer.inputs_of`: the histories."""
        return histories
