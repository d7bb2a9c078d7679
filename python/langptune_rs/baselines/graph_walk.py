"""Graph walk: from the last one or two items over the transitions of others, with no training (arXiv 2605.07125).

Han et al. (2026) call it TGH, a heuristic on the graph of transitions. A list of ten is filled from the rings around
the newest items, and within a ring by the similarity of the items' texts. This follows what the paper and the README of
the authors' code (github.com/haoyuhan1/GraphRec) say. Where they leave a list short of items or end it, a ranking of
the whole catalog needs more: see `GraphWalk`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import NonNegativeFloat
from scipy.sparse import csr_array, load_npz, save_npz

from langptune_rs.baselines.interactions import item_sequences
from langptune_rs.baselines.item_texts import ITEM_VECTORS, embed_items
from langptune_rs.baselines.score_method import ScoreMethod
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.data import Dataset
from langptune_rs.files import write_text

_TRANSITIONS, _CONFIG = "transitions.npz", "graph_walk.json"
PLACES = {1: ((7, 2, 1),), 2: ((5, 1), (3, 1))}
"""How many places of a list of ten each ring gets, by the number of items that are started from.

A tuple for each of them, the newest item's first: the places of the items one step away, two steps away and so on.
These are the defaults of the authors' code, TGH-1 and TGH-2.
"""


class GraphWalkConfig(EmbedderConfig):
    """The embedder of the items' texts, and how far the walk goes."""

    num_sources: Literal[1, 2] = 1
    """Start from the last item, three steps far (TGH-1), or from each of the last two, two steps far (TGH-2)."""
    edge_weight: NonNegativeFloat = 0.5
    """alpha: what the most frequent next item gains over one that never came next, beside a cosine similarity. The
    default is that of the authors' code."""


class GraphWalk(ScoreMethod):
    """Fills a list from the items one step from the last item, then two, then three.

    A step leads from an item to one that came right after it in a train session, or within the history of another. Each
    ring has its `PLACES`. A ring that is short of items leaves its places to what nearer rings had left over. Items of
    a ring stand in the order of their text's similarity to the item that was started from, to which a bonus for
    frequent transitions is added one step away. An item stands where it comes first.

    The paper ends its list at ten items and fills it at random where the rings are short. Here follow what the rings
    had left over, nearer rings first, and then all other items by their similarity to the last item. Items of the
    history take no place.
    """

    name = "Graph walk"
    uses_seed = False
    learns_from_histories = True
    Config = GraphWalkConfig
    grid: ClassVar[Mapping[str, Sequence[object]]] = {"num_sources": (1, 2), "edge_weight": (0.5, 2.0, 8.0)}
    needs = frozenset({"embedder"})

    def __init__(
        self,
        transitions: csr_array | None = None,
        item_vectors: NDArray[np.float32] | None = None,
        config: GraphWalkConfig | None = None,
    ):
        """`transitions` is what `count_transitions` returns, `item_vectors` (n_items, dim) has rows of unit length."""
        self._transitions, self._item_vectors, self._config = transitions, item_vectors, config

    def fit(self, dataset: Dataset, config: GraphWalkConfig, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`; transitions are counted and items embedded, and nothing is random."""
        self._transitions = count_transitions(item_sequences(dataset), len(dataset.catalog))
        embedder = EmbedderConfig(**config.model_dump(include=set(EmbedderConfig.model_fields)))
        self._item_vectors, self._config = embed_items(embedder, dataset.catalog), config

    @property
    def num_items(self) -> int:
        """See `ScoreMethod.num_items`."""
        return int(self._parts[0].shape[0])

    def scores(self, histories: NDArray[np.int32]) -> NDArray[np.float32]:
        """See `ScoreMethod.scores`; an item's score is 0 less its place, exact up to 2**24 items."""
        scores = np.empty((len(histories), self.num_items), dtype=np.float32)
        for row, history in zip(scores, histories, strict=True):
            row[self.order(history)] = -np.arange(self.num_items, dtype=np.float32)
        return scores

    def order(self, history: NDArray[np.int32]) -> NDArray[np.int64]:
        """All items, best first, int64 (n_items,); those of `history` (H,), oldest item first, are at the end."""
        transitions, item_vectors, config = self._parts
        sources = history[::-1][: config.num_sources]
        listed: list[NDArray[np.int64]] = []
        left_over: list[NDArray[np.int64]] = []
        is_open = np.ones(self.num_items, dtype=np.bool_)
        is_open[history] = False
        for source, places in zip(sources, PLACES[config.num_sources], strict=False):
            similarities = item_vectors @ item_vectors[source]
            picked = []
            for distance, ring in enumerate(rings(transitions, int(source), len(places))):
                values = similarities[ring]
                if distance == 0:
                    values = values + config.edge_weight * _bonus(transitions, int(source))
                ranked = ring[np.argsort(-values, kind="stable")]
                picked.append(ranked[is_open[ranked]])
            taken, rest = fill(picked, places)
            is_open[taken] = False
            listed.append(taken)
            left_over.append(rest)
        by_similarity = np.argsort(-(item_vectors @ item_vectors[sources[0]]), kind="stable")
        others = by_similarity[is_open[by_similarity]]
        return _first_places(np.concatenate([*listed, *left_over, others, history]))

    @property
    def _parts(self) -> tuple[csr_array, NDArray[np.float32], GraphWalkConfig]:
        assert self._transitions is not None, "fit or open comes first"
        assert self._item_vectors is not None
        assert self._config is not None
        return self._transitions, self._item_vectors, self._config

    def save(self, folder: Path) -> None:
        """See `Method.save`; the embeddings are written, so that no model is needed to rank again."""
        transitions, item_vectors, config = self._parts
        save_npz(folder / _TRANSITIONS, transitions)
        np.save(folder / ITEM_VECTORS, item_vectors, allow_pickle=False)
        write_text(folder / _CONFIG, config.model_dump_json() + "\n")

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`."""
        config = GraphWalkConfig.model_validate_json((folder / _CONFIG).read_text(encoding="utf-8"))
        return cls(load_npz(folder / _TRANSITIONS), np.load(folder / ITEM_VECTORS, allow_pickle=False), config)


def count_transitions(sequences: Sequence[NDArray[np.int32]], num_items: int) -> csr_array:
    """How often item j came right after item i, sparse float32 (num_items, num_items).

    An item right after itself is no step.
    """
    before = np.concatenate([items[:-1] for items in sequences])
    after = np.concatenate([items[1:] for items in sequences])
    moved = before != after
    counts = csr_array(
        (np.ones(int(moved.sum()), dtype=np.float32), (before[moved], after[moved])), shape=(num_items, num_items)
    )
    counts.sum_duplicates()
    counts.sort_indices()
    return counts


def rings(transitions: csr_array, source: int, num_rings: int) -> Iterator[NDArray[np.int64]]:
    """The items that are exactly one step from `source`, exactly two and so on, int64 and ascending in each ring."""
    ring = np.array([source])
    is_new = np.ones(transitions.shape[0], dtype=np.bool_)
    is_new[source] = False
    for _ in range(num_rings):
        is_reached = np.zeros_like(is_new)
        is_reached[transitions[ring].indices] = True
        ring = np.flatnonzero(is_reached & is_new)
        is_new[ring] = False
        yield ring


def fill(picked: Sequence[NDArray[np.int64]], places: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(the items of a list, those left over) where ring r of `picked`, best first, has `places[r]` places.

    Places that a ring cannot fill go to what nearer rings have left over, ahead of the ring's own items, and places
    that are open at the end to what any ring has left over, nearer rings first.
    """
    listed: list[int] = []
    left_over: list[int] = []
    for ring, number in zip((ring.tolist() for ring in picked), places, strict=True):
        num_filled = max(0, number - len(ring))
        num_own = number - len(left_over[:num_filled])
        listed += left_over[:num_filled] + ring[:num_own]
        left_over = left_over[num_filled:] + ring[num_own:]
    num_open = sum(places) - len(listed)
    return np.array(listed + left_over[:num_open], dtype=np.int64), np.array(left_over[num_open:], dtype=np.int64)


def _bonus(transitions: csr_array, source: int) -> NDArray[np.float64]:
    """ln(1 + count) over its maximum, for each item one step from `source`."""
    counts = transitions.data[transitions.indptr[source] : transitions.indptr[source + 1]].astype(np.float64)
    bonus: NDArray[np.float64] = np.log1p(counts) / np.log1p(counts.max(initial=1.0))
    return bonus


def _first_places(items: NDArray[np.int64]) -> NDArray[np.int64]:
    """The items in their order, each only where it comes first."""
    return items[np.sort(np.unique(items, return_index=True)[1])]
