"""A rollout: sample profiles, reward them, penalise, standardise (Algorithm 1, lines 6 to 9)."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langptune_rs.config import RunConfig
from langptune_rs.config.reward import parse_reward
from langptune_rs.distributed.collectives import gather_objects, gather_rows, on_first_rank, rank, shard
from langptune_rs.rollout.copying import copied_from
from langptune_rs.rollout.reward import (
    STANDARDIZERS,
    Outcomes,
    equal_share,
    penalize,
    values_of,
    weighted_sum,
    with_overlong,
)
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.rollout.variety import distinct_shares, repeated_shares
from langptune_rs.seeds import derive_seed
from langptune_rs.training.checkpoints import Position
from langptune_rs.training.interruption import InterruptibleWriter
from langptune_rs.training.models import Models
from langptune_rs.training.ranking import Ranking
from langptune_rs.training.reference import ReferenceWeights
from langptune_rs.training.rollout_batches import RolloutBatch, pack_rollout
from langptune_rs.training.scorer import score
from langptune_rs.training.subjects import Subjects


@dataclass(frozen=True)
class Rollout:
    """This rank's share of a rollout batch, ready for the steps over it."""

    batches: list[RolloutBatch]
    """Micro-batches, as many as on every other rank."""
    rewards_BG: Tensor
    """Rewards standardised over the global batch, (sessions, profiles)."""
    old_logps_BG: Tensor | None
    """Log-probabilities by the policy that wrote the profiles; None if the rewards did not need them. NaN for profiles
    that have no finite one by this policy or by the reference."""
    metrics: dict[str, float]
    """What to log, the same on every rank."""
    session_ids: NDArray[np.int64]
    """(sessions,)"""
    num_tokens_BG: Tensor
    """Tokens of each profile, float64 (sessions, profiles)."""


class Rollouts:
    """Samples profiles with the policy as it is now and rewards them by the embedder as it is now."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        subjects: Subjects,
        models: Models,
        writer: InterruptibleWriter,
        ranking: Ranking,
    ):
        """`folder` keeps the reference policy of an iteration; `subjects` are all that the policy learns from."""
        self._config, self._folder, self._subjects = config, folder, subjects
        self._models, self._writer, self._ranking = models, writer, ranking
        self._warned_of: set[str] = set()
        self._terms = parse_reward(config.rlso.reward)
        self._reference: ReferenceWeights | None = None
        if config.trains_policy and config.rlso.kl_penalty:
            with models.whole("policy"):
                self._reference = ReferenceWeights(models.scorer)

    def start_phase(self, k: int, *, is_resumed: bool) -> None:
        """Take the policy at the start of iteration k as the reference, if the recipe says so.

        The reference is saved; a resumed phase loads it.
        """
        if self._reference is None or self._config.rlso.kl_reference != "iteration":
            return
        path = self._reference_path(k)
        with self._models.whole("policy"):
            if is_resumed:
                self._reference.load(path)
            else:
                reference = self._reference = ReferenceWeights(self._models.scorer)
                on_first_rank(lambda: reference.save(path))

    def kept_files(self, position: Position) -> list[Path]:
        """What a checkpoint at this position cannot do without: the reference of an iteration that is under way."""
        is_within = position.phase == "rlso" and position.phase_step > 0
        is_kept = self._reference is not None and self._config.rlso.kl_reference == "iteration"
        return [self._reference_path(position.iteration)] if is_within and is_kept else []

    def _reference_path(self, k: int) -> Path:
        return self._folder / f"reference-{k}.safetensors"

    def sample(self, rows: NDArray[np.int64], k: int, t: int) -> Rollout:
        """The rollout over the subjects at `rows`, the global batch of step t in iteration k.

        Raises `Interrupted`.
        """
        config = self._config.rlso
        own = rows[shard(rows)]
        ids, prompts = self._subjects.ids[own], self._subjects.prompts(own, self._writer)
        seeds = [derive_seed(self._config.seed, "sample", k, t, int(subject)) for subject in ids]
        with self._models.whole("policy"):
            profiles = self._writer.write(prompts, num_samples=config.num_profiles, seeds=seeds, keep_states=True)
            batches = self._packed(prompts, profiles)
            old_logps_BG = reference_logps_BG = None
            if self._reference:
                old_logps_BG = score(self._models.scorer, batches)
                with self._reference.in_place():
                    reference_logps_BG = score(self._models.scorer, batches)
        outcomes = self._outcomes(profiles, own)
        values = values_of(self._terms, outcomes)
        raw = with_overlong(
            weighted_sum(self._terms, values),
            profiles.finished,
            reward=config.overlong_reward,
            penalty=config.overlong_penalty,
        )
        rewards_BG = raw_BG = torch.from_numpy(raw).view(-1, config.num_profiles)
        metrics = {}
        if old_logps_BG is not None and reference_logps_BG is not None:
            rewards_BG = penalize(raw_BG, old_logps_BG.cpu(), reference_logps_BG.cpu(), config.kl_penalty)
            metrics["kl/reference"] = gather_rows(old_logps_BG - reference_logps_BG).nanmean().item()
            old_logps_BG = old_logps_BG.where(reference_logps_BG.isfinite(), math.nan)
        standardize = STANDARDIZERS[config.standardize]
        standardized_BG = standardize(gather_rows(rewards_BG))[shard(rows)].to(self._models.policy.model.device)
        all_raw_BG = gather_rows(raw_BG)
        metrics |= self._metrics(all_raw_BG, profiles, outcomes)
        metrics |= self._means_of_terms(values)
        if metrics["profile/overlong_rate"] == 1:
            self._warn_once("overlong", self._all_overlong(max(map(len, prompts), default=0)))
        elif metrics["reward/equal_share"] == 1:
            self._warn_once("equal", self._all_equal())
        num_tokens_BG = torch.tensor([len(tokens) for tokens in profiles.tokens]).view(raw_BG.shape).double()
        return Rollout(batches, standardized_BG, old_logps_BG, metrics, ids, num_tokens_BG)

    def _outcomes(self, profiles: Profiles, rows: NDArray[np.int64]) -> Outcomes:
        """What became of this rank's profiles, by the recommender and by their own words."""
        ranks, log_probs = self._subjects.score(
            rows, profiles, self._ranking, temperature=self._config.rlso.reward_temperature
        )
        lengths = np.array([len(tokens) for tokens in profiles.tokens]) / self._config.profile.max_tokens
        copied = copied_from(profiles.texts, self._subjects.sources(rows))
        return Outcomes(ranks, log_probs, lengths, copied, repeated_shares(profiles.texts))

    def _packed(self, prompts: list[list[int]], profiles: Profiles) -> list[RolloutBatch]:
        """Micro-batches of this rank's sessions, as many as on every other rank."""
        num_profiles, capacity = self._config.rlso.num_profiles, self._config.rlso.micro_batch_tokens
        batches = pack_rollout(self._models.policy, prompts, profiles, num_profiles, capacity)
        most = max(gather_objects(len(batches)))
        if len(batches) < most:
            batches = pack_rollout(self._models.policy, prompts, profiles, num_profiles, capacity, num_batches=most)
        return batches

    def _metrics(self, raw_BG: Tensor, profiles: Profiles, outcomes: Outcomes) -> dict[str, float]:
        """What to log of the raw rewards of the global batch and of this rank's profiles."""
        num_tokens = [len(tokens) for tokens in profiles.tokens]
        distinct = np.repeat(distinct_shares(profiles.texts, raw_BG.shape[1]), raw_BG.shape[1])
        of_profiles = (num_tokens, ~profiles.finished, outcomes.copied, outcomes.repetition, distinct)
        local = torch.from_numpy(np.stack([np.asarray(values, dtype=np.float64) for values in of_profiles], axis=1))
        tokens, overlong, copied_share, repetition, distinct_share = gather_rows(local).mean(0).tolist()
        return {
            "reward/mean": raw_BG.mean().item(),
            "reward/std": raw_BG.std(unbiased=False).item(),
            "reward/equal_share": equal_share(raw_BG),
            "reward/pair_gap": (raw_BG.amax(1) - raw_BG.amin(1)).mean().item(),
            "profile/tokens": tokens,
            "profile/overlong_rate": overlong,
            "profile/copied_share": copied_share,
            "profile/repetition": repetition,
            "profile/distinct_share": distinct_share,
        }

    def _means_of_terms(self, values: NDArray[np.float64]) -> dict[str, float]:
        """The mean of each term over the global batch, before its weight and whether or not a profile ended."""
        means = gather_rows(torch.from_numpy(values)).mean(0).tolist()
        return {f"reward/{term.title}": mean for term, mean in zip(self._terms, means, strict=True)}

    def _all_overlong(self, longest_prompt: int) -> str:
        max_tokens, config = self._config.profile.max_tokens, self._config.rlso
        has_room = longest_prompt + max_tokens < self._models.policy.max_context
        effect = "get rlso.overlong_reward, from which the policy learns nothing"
        if config.overlong_penalty is not None:
            effect = "lose rlso.overlong_penalty, from which the policy does not learn to end"
        return (
            f"No profile of this batch ended within profile.max_tokens = {max_tokens}: all {effect}. "
            f"{'Raise profile.max_tokens, or ask' if has_room else 'Ask'} for shorter profiles in "
            "profile.instruction or profile.closing."
        )

    def _all_equal(self) -> str:
        learns = "nothing but rlso.kl_penalty" if self._config.rlso.kl_penalty else "nothing"
        return (
            "Within every session of this batch all profiles have one reward by rlso.reward = "
            f"{self._config.rlso.reward!r}, from which the policy learns {learns}. If that goes on, take a reward that "
            "tells more ranks apart (ndcg without a cut, log_rank or log_softmax), or raise profile.temperature or "
            "rlso.num_profiles."
        )

    def _warn_once(self, kind: str, message: str) -> None:
        if rank() == 0 and kind not in self._warned_of:
            print(message, file=sys.stderr)
        self._warned_of.add(kind)
