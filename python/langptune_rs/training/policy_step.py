"""One optimizer step of the policy over a rollout batch (section 3.1, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.distributed.collectives import gather_rows, world_size
from langptune_rs.training.engines import Engine, optimizer_step, set_learning_rate
from langptune_rs.training.objectives import ScoredProfiles, find_objective
from langptune_rs.training.rollout_batches import RolloutBatch
from langptune_rs.training.scorer import in_session_order


def policy_step(
    engine: Engine,
    batches: Sequence[RolloutBatch],
    rewards_BG: Tensor,
    old_logps_BG: Tensor | None,
    config: RlsoConfig,
    learning_rate: float,
) -> tuple[Tensor, dict[str, float]]:
    """One optimizer step over the global batch; the arguments hold this rank's sessions and standardised rewards.

    The loss is the mean over all sessions of all ranks, so it does not depend on how they are cut into micro-batches.
    Without `old_logps_BG` the policy must still be the one that wrote the profiles; its log-probabilities are then the
    old ones. Returns the old log-probabilities (sessions, profiles), and what to log.
    """
    objective = find_objective(config.objective)
    losses, logps = [], []
    for batch in batches:
        rows = torch.from_numpy(batch.sessions).to(rewards_BG.device)
        logps_BG = engine(batch)
        old_BG = logps_BG.detach() if old_logps_BG is None else old_logps_BG[rows]
        loss_B = objective(ScoredProfiles(rewards_BG[rows], logps_BG, old_BG), config)
        engine.backward(loss_B.sum() / config.batch_size * world_size())
        losses.append(loss_B.detach())
        logps.append(logps_BG.detach())
    set_learning_rate(engine, learning_rate)
    norm = optimizer_step(engine)
    old_logps_BG = in_session_order(batches, logps) if old_logps_BG is None else old_logps_BG
    return old_logps_BG, {
        "rlso/loss": gather_rows(in_session_order(batches, losses)).mean().item(),
        "rlso/grad_norm": norm,
        "rlso/learning_rate": learning_rate,
    }
