"""One optimizer step of the policy over a rollout batch (section 3.1, Algorithm 1)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.distributed.collectives import any_rank, gather_rows, world_size
from langptune_rs.training.engines import Engine, optimizer_step, set_learning_rate
from langptune_rs.training.objectives import ScoredProfiles, find_objective, losses_of_usable, shares_of_usable
from langptune_rs.training.rollout_batches import RolloutBatch
from langptune_rs.training.scorer import finite_logps, in_session_order


def policy_step(
    engine: Engine,
    batches: Sequence[RolloutBatch],
    rewards_BG: Tensor,
    old_logps_BG: Tensor | None,
    config: RlsoConfig,
    learning_rate: float,
) -> tuple[Tensor, dict[str, float]]:
    """One optimizer step over the global batch; the arguments hold this rank's sessions and standardised rewards.

    The loss is the mean over all pairs of profiles of all ranks, so it does not depend on how they are cut into
    micro-batches. Without `old_logps_BG` the policy must still be the one that wrote the profiles; its
    log-probabilities are then the old ones. A profile without a finite log-probability, old or new, is in no pair.
    Where no pair is left, no step is taken, and loss and norm are NaN. Returns the old log-probabilities (sessions,
    profiles), NaN for profiles that are in no pair, and what to log.
    """
    expected = float(config.batch_size)
    if old_logps_BG is not None:
        expected = gather_rows(shares_of_usable(old_logps_BG.isfinite())).sum().item()
    old_BG, losses_B, shares_B = _accumulate(engine, batches, rewards_BG, old_logps_BG, config, expected)
    of_ranks = gather_rows(torch.stack([losses_B * shares_B, shares_B, old_BG.isnan().sum(1)], 1).double())
    loss, found, num_unusable = (column.sum().item() for column in of_ranks.T.contiguous())
    if 0 < found < expected:  # gradients add up: a second pass turns the first one's 1 / expected into 1 / found
        _accumulate(engine, batches, rewards_BG, old_BG, config, 1 / (1 / found - 1 / expected))
    norm = math.nan
    if found:
        set_learning_rate(engine, learning_rate)
        norm = optimizer_step(engine)
    return old_BG, {
        "rlso/loss": loss / found if found else math.nan,
        "rlso/grad_norm": norm,
        "rlso/learning_rate": learning_rate,
        "rlso/unusable_profiles": num_unusable,
    }


def _accumulate(
    engine: Engine,
    batches: Sequence[RolloutBatch],
    rewards_BG: Tensor,
    old_logps_BG: Tensor | None,
    config: RlsoConfig,
    num_sessions: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Add the gradients of the sum of all sessions' losses over `num_sessions`.

    Returns the old log-probabilities, NaN for unusable profiles, and each session's loss and share of usable pairs.
    """
    objective = find_objective(config.objective)
    is_anywhere = any_rank if engine.zero_optimization_stage() == 3 else bool
    old, losses, shares = [], [], []
    for batch in batches:
        rows = torch.from_numpy(batch.sessions).to(rewards_BG.device)
        known_BG = None if old_logps_BG is None else old_logps_BG[rows]
        lost_BG = None if known_BG is None or num_sessions == config.batch_size else known_BG.isnan()
        logps_BG = finite_logps(engine, batch, lost_BG, is_anywhere)
        old_BG = logps_BG.detach() if known_BG is None else known_BG.where(logps_BG.isfinite(), math.nan)
        loss_B, share_B = losses_of_usable(objective, ScoredProfiles(rewards_BG[rows], logps_BG, old_BG), config)
        engine.backward((loss_B * share_B).sum() / num_sessions * world_size())
        old.append(old_BG)
        losses.append(loss_B.detach())
        shares.append(share_B)
    return in_session_order(batches, old), in_session_order(batches, losses), in_session_order(batches, shares)
