"""A step by this package: `Trainer.rlso_phase` without logging and checkpoints, with all profiles in one batch."""

from __future__ import annotations

import torch
from peers.rlso_work import LEARNING_RATE, Clock, Settings, Work

from langptune_rs.config.engine import EngineConfig
from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.distributed.start import start_distributed
from langptune_rs.evaluation import from_ranks
from langptune_rs.models.memory import keep_freed_memory
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.reward import standardize, with_overlong
from langptune_rs.rollout.sampling import Profiles, write_profiles
from langptune_rs.training.engines import make_engine
from langptune_rs.training.policy_step import policy_step
from langptune_rs.training.rollout_batches import pack_rollout
from langptune_rs.training.scorer import ProfileScorer

MICRO_BATCH_TOKENS = 2048
"""On a CPU more tokens take more memory and no less time."""


def step(settings: Settings) -> dict[str, float]:
    """The numbers of one step, see `Clock.results`."""
    keep_freed_memory()
    start_distributed()
    policy = Policy.load(settings.policy, torch.bfloat16, torch.float32)
    config = RlsoConfig(
        batch_size=settings.num_sessions,
        micro_batch_tokens=MICRO_BATCH_TOKENS,
        num_profiles=settings.num_profiles,
        epochs=settings.epochs,
    )
    engine = make_engine(ProfileScorer(policy), LEARNING_RATE, config.weight_decay, EngineConfig(), "fp32")
    work = Work(settings, policy)
    clock = Clock()
    with clock.timed("rollout"):
        profiles = write(policy, work, settings)
    batches = pack_rollout(policy, work.prompts, profiles, settings.num_profiles, config.micro_batch_tokens)
    raw = with_overlong(from_ranks(work.ranks(profiles.texts), "ndcg"), profiles.finished, reward=0.0, penalty=None)
    rewards = standardize(torch.from_numpy(raw).view(-1, settings.num_profiles))
    with clock.timed("update"):
        old_logps = None
        for _ in range(settings.epochs):
            old_logps, _ = policy_step(engine, batches, rewards, old_logps, config, LEARNING_RATE)
    return clock.results([len(tokens) for tokens in profiles.tokens], settings.epochs)


def write(policy: Policy, work: Work, settings: Settings) -> Profiles:
    """The profiles of a step, all in one batch."""
    return write_profiles(
        policy,
        work.prompts,
        max_tokens=settings.max_tokens,
        temperatures=[settings.profile.temperature] * settings.num_profiles,
        seeds=range(settings.num_sessions),
        token_budget=2**20,
        keep_states=True,
    )
