"""RLSO: fit the difference of two log-ratios to the difference of two rewards (section 3.1, Eq. 6)."""

from __future__ import annotations

import torch
from torch import Tensor

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.training.objectives import ScoredProfiles


def loss(profiles: ScoredProfiles, config: RlsoConfig) -> Tensor:
    """Squared loss of Eq. 6 for each session, (B,): the mean over the pairs of its G profiles.

    With p and p' two profiles of one session, a pair's loss is
    ((r - r') - (1/eta) (ln pi(p)/pi_t(p) - ln pi(p')/pi_t(p')))^2.
    """
    residual_BG = profiles.rewards_BG - (profiles.logps_BG - profiles.old_logps_BG) / config.eta
    first, second = torch.triu_indices(residual_BG.shape[1], residual_BG.shape[1], offset=1)
    return (residual_BG[:, first] - residual_BG[:, second]).square().mean(1)
