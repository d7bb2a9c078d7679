"""DPO: a session's best profile is preferred to its worst (Rafailov et al., Direct preference optimization, 2023)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.training.objectives import ScoredProfiles


def loss(profiles: ScoredProfiles, config: RlsoConfig) -> Tensor:
    """Minus the log-likelihood of each session's preference, (B,).

    With p the session's best profile and p' its worst, it is
    -ln sigmoid(beta (ln pi(p)/pi_t(p) - ln pi(p')/pi_t(p'))), with beta = 1/eta: as in Eq. 6 a policy stands for the
    reward (1/eta) ln pi(p)/pi_t(p), up to a constant of the session. The usual beta of 0.1 is an eta of 10.

    Of equally good profiles each is the best, and of equally bad ones each is the worst: the loss is the mean over
    those pairs. A session of equal rewards prefers nothing: it has the loss 0 and no gradient.

    The reference is the policy that wrote the profiles, where DPO has the one before training. Preferences come from
    the rewards, as in online DPO (Guo et al., Direct language model alignment from online AI feedback, 2024). Only the
    order of a session's rewards counts, so `rlso.standardize` has no effect.
    """
    rewards_BG = profiles.rewards_BG
    best_B1, worst_B1 = rewards_BG.amax(1, keepdim=True), rewards_BG.amin(1, keepdim=True)
    preferred_BGG = (rewards_BG == best_B1)[:, :, None] & ((rewards_BG == worst_B1) & (worst_B1 < best_B1))[:, None, :]
    implied_BG = (profiles.logps_BG - profiles.old_logps_BG) / config.eta
    losses_BGG = -logsigmoid(implied_BG[:, :, None] - implied_BG[:, None, :])
    return (losses_BGG * preferred_BGG).sum((1, 2)) / preferred_BGG.sum((1, 2)).clamp(min=1)
