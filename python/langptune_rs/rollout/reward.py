"""The reward of a profile: how well the recommender ranks the user's next item when it reads that profile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from langptune_rs import ItemIndex
from langptune_rs.evaluation.metrics import from_ranks
from langptune_rs.models.embedder import Embedder


class Recommender:
    """An embedder and the item index it gives, fixed while the policy trains."""

    def __init__(self, embedder: Embedder, items: np.ndarray):
        """`items` are the embeddings of the catalog by `embedder`, float32 (n_items, dim)."""
        self.embedder = embedder
        self.index = ItemIndex(items)

    def ranks(self, profiles: Sequence[str], targets: np.ndarray, histories: np.ndarray) -> np.ndarray:
        """1-based rank of each profile's target among all items outside its history, int64 (n,).

        `targets` is (n,), `histories` (n, history length), both item indexes.
        """
        return self.index.rank(self.embedder.encode_profiles(profiles), targets, exclude=histories)


def recommender_reward(ranks: np.ndarray, finished: np.ndarray, *, metric: str, overlong_reward: float) -> np.ndarray:
    """Raw reward of each profile, float64 (n,): the metric of its target's rank, or Gamma where it did not end.

    With one target NDCG over the whole catalog is 1 / log2(1 + rank), in (0, 1] (section 4.3).
    """
    return np.where(finished, from_ranks(ranks, metric), overlong_reward)
