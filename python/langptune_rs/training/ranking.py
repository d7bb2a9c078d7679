"""The recommender during training: ranks share the embedding of the catalog, again after each embedder update."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from langptune_rs.arrays import Ragged
from langptune_rs.config import RunConfig
from langptune_rs.data import Catalog
from langptune_rs.distributed.collectives import gather_shares, shard
from langptune_rs.distributed.failures import RANKING, during
from langptune_rs.recommending.described import Users, score_descriptions
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.training.models import Models


class Ranking:
    """Ranks the targets of sessions by their profiles with the embedder as it is now."""

    gives_scores = True
    """Whether it knows the scores of all items, and not only ranks."""

    def __init__(self, config: RunConfig, models: Models, catalog: Catalog):
        self.config, self._models, self._catalog = config, models, catalog
        self._recommender: Recommender | None = None

    def forget(self) -> None:
        """Drop the embedded catalog, since the embedder is about to train."""
        self._recommender = None

    @during(RANKING)
    def prepare(self) -> None:
        """Embed the catalog if the embedder has trained since. Each rank embeds its share and gets the whole."""
        if self._recommender is None:
            texts, embedder = self._catalog.texts, self._models.embedder
            with self._models.whole("embedder"):
                own = torch.from_numpy(embedder.encode_items(texts[shard(texts)])).to(embedder.model.device)
            self._recommender = Recommender(embedder, gather_shares(own, len(texts)).cpu().numpy())

    @during(RANKING)
    def score_targets(
        self,
        profiles: Profiles,
        targets: NDArray[np.integer] | Sequence[NDArray[np.integer]],
        histories: NDArray[np.integer],
        *,
        temperature: float,
    ) -> tuple[Ragged, Ragged]:
        """Ranks and log-probabilities of the targets of sessions by their profiles, see `Recommender.score_targets`.

        `targets` is (sessions,), or an array of one or more items for each session.
        """
        self.prepare()
        assert self._recommender is not None
        with self._models.whole("embedder"):
            return self._recommender.score_targets(profiles.texts, targets, histories, temperature=temperature)

    @during(RANKING)
    def score_descriptions(
        self, descriptions: Profiles, items: NDArray[np.integer], users: Sequence[Users], *, temperature: float
    ) -> tuple[Ragged, Ragged]:
        """Ranks and log-probabilities of described items for users, see `recommending.described`.

        `items` and `users` are (items,), with equally many descriptions of each.
        """
        self.prepare()
        assert self._recommender is not None
        with self._models.whole("embedder"):
            return score_descriptions(self._recommender, descriptions.texts, items, users, temperature=temperature)
