"""GRPO: a clipped policy gradient with the session as the group (Shao et al., DeepSeekMath, 2024, Eq. 3)."""

from __future__ import annotations

import math

from torch import Tensor

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.rollout.reward import standardize_by_session
from langptune_rs.training.objectives import ScoredProfiles


def loss(profiles: ScoredProfiles, config: RlsoConfig) -> Tensor:
    """Minus the clipped gain of each session, (B,): the mean over its G profiles.

    With w = pi(p) / pi_t(p) and the advantage A = (r - mean of the session) / standard deviation of the session, a
    profile's gain is min(w A, clip(w, 1 - clip_epsilon, 1 + clip_epsilon) A).

    The advantages are made here whatever `rlso.standardize` says, which therefore has no effect on them: it moves and
    scales all rewards of a session alike. A session of equal rewards has the loss 0 and no gradient.

    The log-probabilities are sums over a profile's tokens, so w is the ratio of the whole profile and is clipped as a
    whole. That is GSPO (Zheng et al., 2025) without its root by the number of tokens. DeepSeekMath clips the ratio of
    each token. It also weighs the tokens of a profile by one over their number; here every token counts the same, as in
    Dr. GRPO (Liu et al., 2025). Its penalty for leaving the reference policy is no term of this loss but a part of the
    reward (`rlso.kl_penalty`).
    """
    advantages_BG = standardize_by_session(profiles.rewards_BG)
    log_ratios_BG = profiles.logps_BG - profiles.old_logps_BG
    # The smaller of the two gains bounds a ratio on one side: above for a better profile, below for a worse one.
    at_most_BG = log_ratios_BG.clamp(max=math.log1p(config.clip_epsilon))
    at_least_BG = log_ratios_BG.clamp(min=math.log1p(-config.clip_epsilon))
    ratios_BG = at_most_BG.where(advantages_BG >= 0, at_least_BG).exp()
    return -(ratios_BG * advantages_BG).mean(1)
