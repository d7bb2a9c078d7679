"""From ranks to the rewards that the policy learns from (sections 3.1 and 4.3)."""

from __future__ import annotations

import numpy as np
from torch import Tensor, zeros_like

from langptune_rs.evaluation.metrics import from_ranks


def recommender_reward(ranks: np.ndarray, finished: np.ndarray, *, metric: str, overlong_reward: float) -> np.ndarray:
    """Raw reward of each profile, float64 (n,): the metric of its target's rank, or Gamma where it did not end.

    With one target, NDCG over the whole catalog is 1 / log2(1 + rank), in (0, 1] (section 4.3).
    """
    return np.where(finished, from_ranks(ranks, metric), overlong_reward)


def penalize(rewards: Tensor, logps: Tensor, reference_logps: Tensor, gamma: float) -> Tensor:
    """Eq. 8: the reward less gamma times the log-ratio to the reference policy."""
    return rewards - gamma * (logps - reference_logps)


def standardize(rewards: Tensor) -> Tensor:
    """The rewards of the global batch at zero mean and unit variance (section 4.3); all zero if they are equal.

    NaN stays NaN and counts in neither.
    """
    if (missing := rewards.isnan()).any():
        return rewards if missing.all() else rewards.masked_scatter(~missing, standardize(rewards[~missing]))
    if rewards.max() == rewards.min():
        return zeros_like(rewards)
    centered = rewards - rewards.mean()
    return centered / centered.square().mean().sqrt()
