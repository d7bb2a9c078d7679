"""LLM2BERT4Rec: BERT4Rec whose items start as embeddings of their texts (Harte et al., RecSys 2023; section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from langptune_rs.baselines.bert4rec import Bert4Rec, Bert4RecConfig, Bert4RecNetwork
from langptune_rs.baselines.item_transformer import INITIAL_SPREAD, ItemNetwork
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.data import Dataset
from langptune_rs.errors import DataError
from langptune_rs.models.embedder import Embedder, encoder_size


class Llm2Bert4RecConfig(Bert4RecConfig):
    """BERT4Rec's settings, and the embedder whose vectors the items start from.

    `hidden` of appendix C, 512, needs an embedder of as many dimensions, such as the paper's mxbai-embed-large (1,024).
    A comparison takes the embedder's where it has fewer: see `Llm2Bert4Rec.choices`.
    """

    embedder: EmbedderConfig = EmbedderConfig()


def check_dimensions(hidden: int, dim: int, num_items: int) -> None:
    """Raise `DataError` when the vectors (num_items, dim) of texts have less than `hidden` principal components.

    They have `dim` at most, and `num_items` - 1.
    """
    most = min(dim, num_items - 1)
    if hidden > most:
        raise DataError(
            f"hidden = {hidden}, but the texts of {num_items} items, embedded in {dim} dimensions, have at most {most} "
            "principal components for LLM2BERT4Rec to start from. Set hidden to that or less, a multiple of num_heads"
            + (", or embedder.model to an embedder of more dimensions." if dim < num_items - 1 else ".")
        )


def principal_components(vectors: NDArray[np.float32], num_components: int) -> NDArray[np.float64]:
    """Vectors (n, dim) minus their mean, on the axes of their largest variance, float64 (n, num_components)."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)  # by rising variance
    components: NDArray[np.float64] = centred @ axes[:, : -num_components - 1 : -1]
    return components


class Llm2Bert4Rec(Bert4Rec):
    """BERT4Rec whose item embeddings start as the principal components of the embedder's vectors.

    One factor brings the components to the spread that BERT's embeddings start with at random, so that the mask, the
    positions and the learning rate are in proportion to them. They are trained like all other weights.
    """

    name = "LLM2BERT4Rec"
    group = "Text-based"
    Config = Llm2Bert4RecConfig
    needs = frozenset({"embedder"})

    @classmethod
    def choices(cls, config: Llm2Bert4RecConfig) -> Mapping[str, Sequence[object]]:
        """See `Method.choices`: the grid of BERT4Rec, and one value of `hidden`.

        It is the paper's 512, or as many dimensions as the embedder has where these are fewer, rounded down to a
        multiple of `num_heads`. The paper's own embedder has more.
        """
        dim = encoder_size(config.embedder).dim
        return {**cls.grid, "hidden": (min(config.hidden, max(1, dim // config.num_heads) * config.num_heads),)}

    def start_network(self, network: ItemNetwork, config: Llm2Bert4RecConfig, dataset: Dataset) -> None:
        """See `ItemTransformer.start_network`. Raises `DataError` when there are less components than `hidden`."""
        assert isinstance(network, Bert4RecNetwork)
        embedder = Embedder.load(config.embedder)
        check_dimensions(config.hidden, embedder.dim, network.num_items)
        components = principal_components(embedder.encode_items(dataset.catalog.texts), config.hidden)
        if not components.any():
            raise DataError("LLM2BERT4Rec starts from the texts of the items, which are all the same. Leave it out.")
        with torch.no_grad():
            network.embeddings[: network.num_items] = torch.from_numpy(components * INITIAL_SPREAD / components.std())
