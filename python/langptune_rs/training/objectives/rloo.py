"""RLOO: REINFORCE with the other profiles of the session as the baseline (Ahmadian et al., 2024)."""

from __future__ import annotations

from torch import Tensor

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.training.objectives import ScoredProfiles


def loss(profiles: ScoredProfiles, _: RlsoConfig) -> Tensor:
    """Minus the estimated gain of each session, (B,): the mean of ratio times advantage over its G profiles.

    A profile's advantage is its reward less the mean reward of the other G - 1. Its ratio pi(p) / pi_t(p) corrects for
    the policy that wrote it, from which later steps over the same rollout batch have moved. Where no step has been
    taken, the gradient is that of Eq. 6 times eta / 4: both raise a log-probability by its reward less the mean.
    """
    rewards_BG, num_profiles = profiles.rewards_BG, profiles.rewards_BG.shape[1]
    others_BG = (rewards_BG.sum(1, keepdim=True) - rewards_BG) / (num_profiles - 1)
    ratios_BG = (profiles.logps_BG - profiles.old_logps_BG).exp()
    return -(ratios_BG * (rewards_BG - others_BG)).mean(1)
