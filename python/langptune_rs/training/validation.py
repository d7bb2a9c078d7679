"""Validation: greedy profiles of validation sessions, ranked by the current embedder."""

from __future__ import annotations

import numpy as np

from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.distributed.collectives import gather_objects, shard
from langptune_rs.evaluation.summary import LIKELIHOOD_TEMPERATURE, LOG_LIKELIHOOD, LOG_RANK, score_sessions
from langptune_rs.progress import progress
from langptune_rs.rollout.copying import copied_shares
from langptune_rs.training.interruption import InterruptibleWriter
from langptune_rs.training.models import Models
from langptune_rs.training.ranking import Ranking


class Validation:
    """Scores both models on the same validation sessions every time."""

    def __init__(
        self, config: RunConfig, dataset: Dataset, models: Models, writer: InterruptibleWriter, ranking: Ranking
    ):
        self.config, self._dataset, self._models, self._writer, self._ranking = config, dataset, models, writer, ranking
        validation = dataset.sessions.select("validation")
        self.sessions: Sessions = validation.sample(config.evaluation.validation_sessions, config.data.seed)

    def scores(self, k: int) -> dict[str, float]:
        """The scores to log in iteration k; every rank writes the profiles of its share. Raises `Interrupted`."""
        self._ranking.prepare()
        own = self.sessions.take(np.arange(len(self.sessions))[shard(self.sessions)])
        with self._models.whole("policy"), progress(len(own), f"iteration {k + 1}: validation") as advance:
            prompts = self._writer.prompts(own)
            profiles = self._writer.write(prompts, greedy=True, on_batch=lambda written: advance(len(written)))
        scored = self._ranking.score_targets(profiles, own.targets, own.histories, temperature=LIKELIHOOD_TEMPERATURE)
        copied = copied_shares(profiles.texts, own, self._dataset.catalog)
        ranks, log_probs, copied = (
            np.concatenate(parts)
            for parts in zip(*gather_objects((*(of_targets.values for of_targets in scored), copied)), strict=True)
        )
        means = score_sessions(ranks[:, None], log_probs[:, None], self.config.evaluation.k).mean
        metrics = (f"ndcg@{self.config.evaluation.k}", "ndcg", LOG_LIKELIHOOD, LOG_RANK)
        return {
            **{f"validation/{metric}": means[metric] for metric in metrics},
            "validation/copied_share": float(copied.mean()),
        }
