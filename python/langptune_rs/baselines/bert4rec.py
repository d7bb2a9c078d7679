"""BERT4Rec: a bidirectional transformer learns to fill gaps in sessions (Sun et al., CIKM 2019; section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveInt
from torch import Tensor

from langptune_rs.baselines.item_transformer import (
    INITIAL_SPREAD,
    UNKNOWN,
    ItemNetwork,
    ItemTransformer,
    ItemTransformerConfig,
    with_one,
)
from langptune_rs.data import Dataset
from langptune_rs.models.precision import Precision, trained_in


class Bert4RecConfig(ItemTransformerConfig):
    """BERT4Rec and how it is trained; from appendix C of the paper, where nothing else is said."""

    hidden: PositiveInt = 512
    num_heads: PositiveInt = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    mask_probability: Annotated[float, Field(gt=0, le=1)] = 0.5
    """How often an item of a session is masked."""
    decay_step: PositiveInt = 25
    """Epochs after which the learning rate is multiplied by `decay`, again and again."""
    decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """The paper does not say how the rate falls every 25 epochs. All its values but `hidden` and `mask_probability` are
    those of the template in BERT4Rec-VAE-Pytorch, in which 1.0 goes with a decay step of 25: a constant rate. The
    default of that program's option is 0.1. No trial lasts until the rate falls, so that the grid leaves it out."""
    max_epochs: PositiveInt = 400
    """The paper has 100. This is no more than a bound: after 100 epochs BERT4Rec may still learn (Petrov and Macdonald,
    RecSys 2022)."""
    patience: PositiveInt = 10
    """Ours, as for SASRec."""
    precision: Precision = "auto"
    """What training multiplies in; the weights are float32. "auto" is bf16 where the hardware is faster in it: an epoch
    of ML-100K then takes three quarters of the time on a CPU with AMX. Ranking is in float32."""

    def learning_rate_in(self, epoch: int) -> float:
        """See `ItemTransformerConfig.learning_rate_in`; it falls in steps."""
        return self.learning_rate * self.decay ** (epoch // self.decay_step)


class Bert4RecNetwork(ItemNetwork):
    """transformers' BERT over items. The token after the last item is the mask."""

    def __init__(self, config: Bert4RecConfig, num_items: int, length: int):
        """`length` is that of the sequences, H + 1."""
        from transformers import BertConfig, BertForMaskedLM

        super().__init__()
        self.num_items = num_items
        self.rounds_products = trained_in(config.precision) == "bf16"
        self.bert = BertForMaskedLM(
            BertConfig(
                vocab_size=num_items + 1,
                hidden_size=config.hidden,
                num_hidden_layers=config.num_blocks,
                num_attention_heads=config.num_heads,
                intermediate_size=4 * config.hidden,
                hidden_dropout_prob=config.dropout,
                attention_probs_dropout_prob=config.dropout,
                max_position_embeddings=length,
                type_vocab_size=1,
                initializer_range=INITIAL_SPREAD,
                pad_token_id=None,
                # As fast for five tokens, and its gradients have one order of summing. Known to the class above it.
                attn_implementation="eager",  # type: ignore[call-arg]
            )
        )

    def loss(self, inputs_BL: Tensor, labels_BL: Tensor) -> Tensor:
        """See `ItemNetwork.loss`."""
        with torch.autocast(inputs_BL.device.type, torch.bfloat16, enabled=self.rounds_products):
            return super().loss(inputs_BL, labels_BL)

    def states(self, inputs_BL: Tensor) -> Tensor:
        """See `ItemNetwork.states`."""
        states: Tensor = self.bert.bert(input_ids=inputs_BL).last_hidden_state
        return states

    def states_at(self, inputs_BL: Tensor, places_BL: Tensor) -> Tensor:
        """See `ItemNetwork.states_at`. The last block feeds forward these places alone: a sixth of a step is saved."""
        states = self.bert.bert.embeddings(input_ids=inputs_BL)
        blocks: list[Any] = list(self.bert.bert.encoder.layer)
        last = blocks.pop()
        for block in blocks:
            states = block(states)
        attended = last.attention.self(states)[0]
        found: Tensor = last.feed_forward_chunk(last.attention.output(attended[places_BL], states[places_BL]))
        return found

    def queries(self, states_NH: Tensor) -> Tensor:
        """See `ItemNetwork.queries`: through the layer before the output, then 1 for the bias, (N, hidden + 1)."""
        return with_one(self.bert.cls.predictions.transform(states_NH))

    def items(self) -> Tensor:
        """See `ItemNetwork.items`: the input embeddings and the bias, (n_items, hidden + 1)."""
        bias = self.bert.cls.predictions.bias[:, None]
        return torch.cat([self.embeddings, bias], dim=1)[: self.num_items]

    @property
    def embeddings(self) -> Tensor:
        """The embeddings of the items and of the mask, (n_items + 1, hidden)."""
        weights = self.bert.get_input_embeddings().weight
        assert isinstance(weights, Tensor)
        return weights


def cloze(
    rows: NDArray[np.int64], mask: int, probability: float, draws: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Mask some known items of each row, and ask for them: (inputs, labels), int64 (n, L) each.

    An item is masked with `probability`. Where this masks none, the last known item is masked, which is what ranking
    asks for. An `UNKNOWN` item is always masked and never asked for.
    """
    known = rows != UNKNOWN
    masked = (draws.random(rows.shape) < probability) & known
    spared = np.flatnonzero(~masked.any(axis=1) & known.any(axis=1))
    last = rows.shape[1] - 1 - known[spared, ::-1].argmax(axis=1)
    masked[spared, last] = True
    return np.where(masked | ~known, mask, rows), np.where(masked, rows, UNKNOWN)


class Bert4Rec(ItemTransformer):
    """Ranks what BERT expects at a mask after the history.

    Masked items are replaced by the mask, always. A held-out session ends with a mask in training too, of which
    nothing is asked.
    """

    name = "BERT4Rec"
    Config = Bert4RecConfig
    grid: ClassVar[Mapping[str, Sequence[object]]] = {"learning_rate": (1e-3, 1e-4)}
    trial: ClassVar[Mapping[str, object]] = {"max_epochs": 10}
    """Enough to see which learning rate learns; a whole fit takes several times as many."""

    def make_network(self, config: Bert4RecConfig, dataset: Dataset) -> Bert4RecNetwork:
        """See `ItemTransformer.make_network`."""
        return Bert4RecNetwork(config, len(dataset.catalog), dataset.sessions.histories.shape[1] + 1)

    def examples(
        self, rows: NDArray[np.int64], config: Bert4RecConfig, draws: np.random.Generator
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See `ItemTransformer.examples`: every row with new gaps."""
        return cloze(rows, self._mask, config.mask_probability, draws)

    def inputs_of(self, histories: NDArray[np.int64]) -> NDArray[np.int64]:
        """See `ItemTransformer.inputs_of`: the histories, and a mask after each."""
        return np.pad(histories, ((0, 0), (0, 1)), constant_values=self._mask)

    @property
    def _mask(self) -> int:
        assert isinstance(self.network, Bert4RecNetwork)
        return self.network.num_items
