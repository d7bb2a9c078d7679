"""LangPTune, Algorithm 1: K iterations of J contrastive steps for the embedder and T RLSO steps for the policy.

What the policy writes is for its task to say: in the paper it is the profile of a session.
Before the first iteration the embedder may train on the titles of histories (`contrastive.history_steps`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.distributed.failures import CONTRASTIVE, RLSO, WRITING, during
from langptune_rs.progress import progress
from langptune_rs.runs.folder import CHECKPOINTS
from langptune_rs.seeds import derive_seed
from langptune_rs.training.checkpoints import Phase
from langptune_rs.training.checks import check_precision, check_prompts, check_reward, check_sizes
from langptune_rs.training.collapse import CollapseWarning, entropy
from langptune_rs.training.contrastive_step import (
    ContrastiveBatch,
    contrastive_batch,
    contrastive_step,
    log_target_shares,
)
from langptune_rs.training.interruption import Interrupted, InterruptibleWriter, Interruption, Stopped
from langptune_rs.training.log_ratios import LogRatioCheck
from langptune_rs.training.models import Models
from langptune_rs.training.phase_profiles import PhaseProfiles
from langptune_rs.training.policy_step import policy_step
from langptune_rs.training.ranking import Ranking
from langptune_rs.training.rollouts import Rollout, Rollouts
from langptune_rs.training.schedules import batch_rows, linear_decay
from langptune_rs.training.state import Stopwatch, TrainingState
from langptune_rs.training.subjects import Task, train_sessions
from langptune_rs.training.unusable import UnusableProfiles
from langptune_rs.training.validation import Validation


class Trainer:
    """Both models, and the parts of a run that use them in turn."""

    def __init__(self, config: RunConfig, output: Path, dataset: Dataset, task: Task):
        """`task` is what the policy learns to write."""
        dataset = dataset.with_train_share(config.data.train_share, config.seed)
        self.config, self.output, self.dataset = config, output, dataset
        self.sessions = train_sessions(config, dataset)
        self.log_shares = log_target_shares(dataset) if config.contrastive.popularity_correction else None
        assignment = task.assign(config, dataset)
        self.subjects = assignment.train
        check_sizes(config, len(self.subjects.ids), assignment.num_available, assignment.name)
        check_precision(config)
        check_reward(config, gives_scores=Ranking.gives_scores)
        self.models = Models(config)
        self.interruption = Interruption()
        self.writer = InterruptibleWriter(self.models.policy, dataset, config, self.interruption)
        self.ranking = Ranking(config, self.models, dataset.catalog)
        self.validation = Validation(config, assignment.validation, self.models, self.writer, self.ranking)
        checkpoints = output / CHECKPOINTS
        self.phase_profiles = PhaseProfiles(config, checkpoints, self.sessions, self.models, self.writer)
        self.rollouts = Rollouts(config, checkpoints, self.subjects, self.models, self.writer, self.ranking)
        self.collapse = CollapseWarning(config.rlso.num_profiles)
        check_prompts(assignment, self.writer)
        self.state = TrainingState(config, output, self.models.engines)

    def run(self) -> None:
        """Run the loop of Algorithm 1 from the current position to the end, then save both models."""
        try:
            with self.interruption.listening():
                self._iterate()
            self.models.save(self.output)
        finally:
            self.state.close()

    def _iterate(self) -> None:
        try:
            if self.state.position.step == 0:
                self._validate(0)
            if self.state.position.phase == "history":
                self.history_phase()
                self._enter(0, "contrastive")
            for k in range(self.state.position.iteration, self.config.iterations):
                if self.config.trains_on_profiles and self.state.position.phase == "contrastive":
                    self.contrastive_phase(k)
                self._enter(k, "rlso")
                if self.config.trains_policy:
                    self.rlso_phase(k)
                self._enter(k + 1, "contrastive")
        except Interrupted:
            if not self.state.is_saved:
                self._save()
            raise Stopped from None

    @during(CONTRASTIVE)
    def history_phase(self) -> None:
        """Take steps of Eq. 7 on the titles of histories in place of profiles, over all train sessions of the data."""
        config, sessions = self.config.contrastive, self.dataset.sessions.select("train")
        seed = derive_seed(self.config.seed, "history")
        rates = [linear_decay(config.learning_rate, j, config.history_steps) for j in range(config.history_steps)]

        def batch(j: int) -> ContrastiveBatch:
            rows = batch_rows(len(sessions), config.batch_size, j, seed)
            titles = [self.dataset.history_titles(sessions, row) for row in rows.tolist()]
            return self._contrastive_batch(sessions, rows, titles)

        self._contrastive_steps(0, "history", rates, batch)

    @during(CONTRASTIVE)
    def contrastive_phase(self, k: int) -> None:
        """Take J steps of Eq. 7 on profiles that the current policy writes for the sessions of this phase."""
        config, seed = self.config.contrastive, derive_seed(self.config.seed, "contrastive", k)
        total_steps, steps = self.config.iterations * config.steps, range(config.steps)
        rates = [linear_decay(config.learning_rate, k * config.steps + j, total_steps) for j in steps]
        rows = [batch_rows(len(self.sessions), config.batch_size, j, seed) for j in steps]
        profiles, seconds = self.phase_profiles.of(k, np.unique(np.concatenate(rows)))

        def batch(j: int) -> ContrastiveBatch:
            return self._contrastive_batch(self.sessions, rows[j], [profiles[row] for row in rows[j].tolist()])

        self._contrastive_steps(k, "contrastive", rates, batch, seconds)

    def _contrastive_steps(
        self,
        k: int,
        phase: Phase,
        learning_rates: Sequence[float],
        batch: Callable[[int], ContrastiveBatch],
        seconds_before: float = 0.0,
    ) -> None:
        """Take the steps of a phase that are left, one for each of `learning_rates`, then validate.

        `seconds_before` were spent on what the steps learn from: they count as the first step's.
        """
        first_step = self.state.position.phase_step
        self.ranking.forget()
        with progress(len(learning_rates), f"iteration {k + 1}: {phase}", first_step) as advance:
            for j in range(first_step, len(learning_rates)):
                watch = Stopwatch()
                values = contrastive_step(
                    self.models.engines["embedder"],
                    self.models.embedder,
                    batch(j),
                    self.config.contrastive,
                    learning_rates[j],
                )
                self.state.finish_step(k, phase, values, watch.lap() + (seconds_before if j == 0 else 0.0))
                advance(note=f"loss {values['contrastive/loss']:.4f}")
                self._save_if_due()
        self._validate(k)

    @during(RLSO)
    def rlso_phase(self, k: int) -> None:
        """Take T steps of the policy. Every `epochs` of them share a rollout, rewarded by the current embedder."""
        config, first_step = self.config.rlso, self.state.position.phase_step
        total_steps, seed = self.config.iterations * config.steps, derive_seed(self.config.seed, "rlso", k)
        self.ranking.prepare()
        self.rollouts.start_phase(k, is_resumed=first_step > 0)
        with progress(config.steps, f"iteration {k + 1}: RLSO", first_step) as advance:
            for t in range(first_step, config.steps, config.epochs):
                watch = Stopwatch()
                rows = batch_rows(len(self.subjects.ids), config.batch_size, t // config.epochs, seed)
                rollout = self.rollouts.sample(rows, k, t)
                old_logps_BG, metrics = rollout.old_logps_BG, rollout.metrics
                check = self._log_ratio_check(rollout, k) if t == 0 else None
                unusable = UnusableProfiles(rollout.session_ids)
                for step in range(t, t + config.epochs):
                    learning_rate = linear_decay(config.learning_rate, k * config.steps + step, total_steps)
                    old_logps_BG, values = policy_step(
                        self.models.engines["policy"],
                        rollout.batches,
                        rollout.rewards_BG,
                        old_logps_BG,
                        config,
                        learning_rate,
                    )
                    unusable.name(old_logps_BG, values["rlso/unusable_profiles"])
                    if step == t:
                        metrics = {**metrics, "profile/entropy": entropy(old_logps_BG, rollout.num_tokens_BG)}
                        self.collapse.check(metrics)
                    if check and step == t:
                        with self.models.whole("policy"):
                            metrics = {**metrics, **check.metrics()}
                    self.state.finish_step(k, "rlso", {**values, **metrics}, watch.lap())
                    metrics = {}
                    advance(note=f"reward {rollout.metrics['reward/mean']:.4f}, loss {values['rlso/loss']:.4f}")
                self._save_if_due(width=config.epochs)
        self._validate(k)

    def _log_ratio_check(self, rollout: Rollout, k: int) -> LogRatioCheck:
        with self.models.whole("policy"):
            return LogRatioCheck(self.models.scorer, rollout.batches[0], derive_seed(self.config.seed, "noise", k))

    def _contrastive_batch(self, sessions: Sessions, rows: NDArray[np.int64], texts: Sequence[str]) -> ContrastiveBatch:
        """The `texts` of the sessions at `rows`, with their targets."""
        return contrastive_batch(self.dataset, sessions, rows, texts, self.log_shares)

    @during(WRITING)
    def _validate(self, k: int) -> None:
        """Log the validation scores of both models, once after each phase."""
        if len(self.validation) and self.state.needs_validation():
            self.state.log_validation(k, self.validation.scores(k))

    def _enter(self, k: int, phase: Phase) -> None:
        """Enter the next phase, with a checkpoint before it."""
        if self.state.enter(k, phase):
            self._save()
            self.interruption.raise_if_asked()

    def _save_if_due(self, width: int = 1) -> None:
        """Save every N steps, at the next end of a rollout batch; stop there if asked to."""
        if self.state.is_checkpoint_due(width):
            self._save()
        self.interruption.raise_if_asked()

    def _save(self) -> None:
        self.state.save(self.rollouts.kept_files(self.state.position))
