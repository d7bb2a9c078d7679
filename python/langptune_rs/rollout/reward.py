"""From what became of profiles to the rewards that the policy learns from (sections 3.1 and 4.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, zeros_like

from langptune_rs.arrays import Ragged
from langptune_rs.config.reward import Term
from langptune_rs.errors import ConfigError
from langptune_rs.evaluation.metrics import from_ranks


@dataclass(frozen=True)
class Outcomes:
    """What became of P profiles."""

    ranks: Ragged
    """1-based ranks of the targets of each profile's session, P rows of one or more."""
    log_probs: Ragged | None
    """ln softmax of the targets' scores over the catalog, in the same rows; None from a recommender without scores."""
    lengths: NDArray[np.float64]
    """Tokens over the most that a profile may have, (P,)."""
    copied: NDArray[np.float64]
    """Share of words that are copied from the titles of the history, (P,)."""
    repetition: NDArray[np.float64]
    """Share of the runs of three words that the profile has written before, (P,)."""


def ndcg(outcomes: Outcomes, k: int | None) -> NDArray[np.float64]:
    """NDCG of each target alone, 1 / log2(1 + rank) in (0, 1] (section 4.3), 0 beyond rank k; mean over the targets."""
    return _mean_metric(outcomes, "ndcg", k)


def mrr(outcomes: Outcomes, k: int | None) -> NDArray[np.float64]:
    """1 / rank, 0 beyond rank k; mean over the targets."""
    return _mean_metric(outcomes, "mrr", k)


def log_rank(outcomes: Outcomes, _: int | None) -> NDArray[np.float64]:
    """-ln rank; mean over the targets."""
    return _mean_over_targets(-np.log(outcomes.ranks.values), outcomes.ranks.offsets)


def log_softmax(outcomes: Outcomes, _: int | None) -> NDArray[np.float64]:
    """ln softmax(score / temperature) over the catalog less the history; mean over the targets."""
    assert outcomes.log_probs is not None, "check_recommender comes first"
    return _mean_over_targets(outcomes.log_probs.values, outcomes.log_probs.offsets)


TERMS: dict[str, Callable[[Outcomes, int | None], NDArray[np.float64]]] = {
    "ndcg": ndcg,
    "mrr": mrr,
    "log_rank": log_rank,
    "log_softmax": log_softmax,
    "length": lambda outcomes, _: outcomes.lengths,
    "copied": lambda outcomes, _: outcomes.copied,
    "repetition": lambda outcomes, _: outcomes.repetition,
}
"""Every term of `rlso.reward`, float64 (P,) from the outcomes and the cut k; `config/reward.py` says what each is."""


def values_of(terms: Sequence[Term], outcomes: Outcomes) -> NDArray[np.float64]:
    """Each term of P profiles without its weight, float64 (P, len(terms))."""
    return np.stack([TERMS[term.name](outcomes, term.k) for term in terms], axis=1)


def weighted_sum(terms: Sequence[Term], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The reward of each profile, float64 (P,), from the values of its terms (P, len(terms))."""
    return sum((term.weight * values[:, i] for i, term in enumerate(terms)), np.zeros(len(values)))


def with_overlong(
    rewards: NDArray[np.float64], finished: NDArray[np.bool_], *, reward: float, penalty: float | None
) -> NDArray[np.float64]:
    """The raw rewards, float64 (P,), where a profile that did not end gets `reward`, which is Gamma.

    With a `penalty` it keeps what it earned, less the penalty.
    """
    return np.where(finished, rewards, reward if penalty is None else rewards - penalty)


def check_recommender(terms: Sequence[Term], *, gives_scores: bool) -> None:
    """Raise `ConfigError` when a term needs the scores of all items and the recommender only ranks."""
    needing = [term.title for term in terms if term.name == "log_softmax"]
    if needing and not gives_scores:
        raise ConfigError(
            f"rlso.reward has {needing[0]}, a share in a softmax of the scores of all items, and the recommender gives "
            "only ranks. Write log_rank instead, or rank with an embedder and its items."
        )


def penalize(rewards: Tensor, logps: Tensor, reference_logps: Tensor, gamma: float) -> Tensor:
    """Eq. 8: the reward less gamma times the log-ratio to the reference policy."""
    return rewards - gamma * (logps - reference_logps)


def equal_share(rewards_BG: Tensor) -> float:
    """The share of sessions whose profiles all have one reward, from (B, G): no objective learns from equal ones."""
    return (rewards_BG.amax(1) == rewards_BG.amin(1)).double().mean().item()


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


def standardize_by_session(rewards_BG: Tensor) -> Tensor:
    """The rewards of each session at zero mean and unit variance, (B, G); all zero for a session of equal ones.

    NaN stays NaN and counts in neither.
    """
    return torch.stack([standardize(rewards_G) for rewards_G in rewards_BG])


def standardize_leaving_one_out(rewards_BG: Tensor) -> Tensor:
    """Each reward less the mean of the other profiles of its session, over the root mean square of these differences.

    Returns (B, G) with unit mean square over the global batch; all zero if within every session the rewards are equal.
    NaN stays NaN and counts nowhere; a session with one reward that is left gives 0.
    """
    num_left_B1 = rewards_BG.isfinite().sum(1, keepdim=True)
    centered_BG = rewards_BG - rewards_BG.nanmean(1, keepdim=True)
    # r - (n mean - r) / (n - 1) is n / (n - 1) times r - mean.
    apart_BG = centered_BG * num_left_B1 / (num_left_B1 - 1).clamp(min=1)
    is_equal_B1 = _largest(rewards_BG) == -_largest(-rewards_BG)
    apart_BG = apart_BG.where(~is_equal_B1 | rewards_BG.isnan(), 0)
    size = apart_BG.square().nanmean().sqrt()
    return apart_BG / size if size > 0 else apart_BG


def _largest(values_BG: Tensor) -> Tensor:
    """The largest value of each row that is not NaN, (B, 1)."""
    return values_BG.nan_to_num(nan=-math.inf).amax(1, keepdim=True)


STANDARDIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "batch": standardize,
    "session": standardize_by_session,
    "leave-one-out": standardize_leaving_one_out,
}
"""What `rlso.standardize` names: a function of the rewards of the global batch, (B, G), before the loss."""


def _mean_metric(outcomes: Outcomes, metric: str, k: int | None) -> NDArray[np.float64]:
    name = metric if k is None else f"{metric}@{k}"
    return _mean_over_targets(from_ranks(outcomes.ranks.values, name), outcomes.ranks.offsets)


def _mean_over_targets(values: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    counts = np.diff(offsets)
    assert counts.all(), "every session has a target"
    rows = np.repeat(np.arange(len(counts)), counts)
    return np.bincount(rows, weights=values, minlength=len(counts)) / counts
