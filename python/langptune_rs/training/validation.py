"""Validation: greedy texts about subjects of the validation split, ranked by the current embedder."""

from __future__ import annotations

import numpy as np

from langptune_rs.config import RunConfig
from langptune_rs.distributed.collectives import gather_objects, shard
from langptune_rs.evaluation.summary import LIKELIHOOD_TEMPERATURE, LOG_LIKELIHOOD, LOG_RANK, score_sessions
from langptune_rs.progress import progress
from langptune_rs.rollout.copying import copied_from
from langptune_rs.training.interruption import InterruptibleWriter
from langptune_rs.training.models import Models
from langptune_rs.training.ranking import Ranking
from langptune_rs.training.subjects import Subjects


class Validation:
    """Scores both models on the same subjects every time."""

    def __init__(
        self, config: RunConfig, subjects: Subjects, models: Models, writer: InterruptibleWriter, ranking: Ranking
    ):
        self.config, self._subjects, self._models, self._writer, self._ranking = (
            config,
            subjects,
            models,
            writer,
            ranking,
        )

    def __len__(self) -> int:
        """The number of subjects."""
        return len(self._subjects.ids)

    def scores(self, k: int) -> dict[str, float]:
        """The scores to log in iteration k; every rank writes the texts of its share. Raises `Interrupted`."""
        self._ranking.prepare()
        own = np.arange(len(self))[shard(self._subjects.ids)]
        with self._models.whole("policy"), progress(len(own), f"iteration {k + 1}: validation") as advance:
            prompts = self._subjects.prompts(own, self._writer)
            written = self._writer.write(prompts, greedy=True, on_batch=lambda batch: advance(len(batch)))
        scored = self._subjects.score(own, written, self._ranking, temperature=LIKELIHOOD_TEMPERATURE)
        copied = copied_from(written.texts, self._subjects.sources(own))
        ranks, log_probs, copied = (
            np.concatenate(parts)
            for parts in zip(*gather_objects((*(of_choices.values for of_choices in scored), copied)), strict=True)
        )
        means = score_sessions(ranks[:, None], log_probs[:, None], self.config.evaluation.k).mean
        metrics = (f"ndcg@{self.config.evaluation.k}", "ndcg", LOG_LIKELIHOOD, LOG_RANK)
        return {
            **{f"validation/{metric}": means[metric] for metric in metrics},
            "validation/copied_share": float(copied.mean()),
        }
