"""Whether the policy still writes profiles that differ: its entropy, and a warning when it has collapsed."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from langptune_rs.distributed.collectives import gather_rows, rank

MOST_REPETITION = 0.5
"""Healthy profiles of some sentences repeat less than a tenth of their runs of three words."""
MOST_COPIED = 0.75
"""Of policies that learn to name what a user chose, seven tenths of the words at most were seen to be of its titles."""
LEAST_ENTROPY = 0.05
"""Nats a token. At a temperature of 0.6 the recipes' policies had 0.6 to 0.9 at first, and 0.13 at least later."""


def entropy(logps_BG: Tensor, num_tokens_BG: Tensor) -> float:
    """Mean -ln p of a sampled token in nats, over all ranks, from log-probabilities of whole profiles, (B, G) both.

    It estimates the entropy of the policy's next token at the temperature of sampling. Profiles without a finite
    log-probability are left out; NaN where none is left.
    """
    usable_BG = logps_BG.isfinite()
    nats = -logps_BG.double().where(usable_BG, 0).sum()
    num_tokens = num_tokens_BG.to(logps_BG.device).where(usable_BG, 0).sum()
    total, count = gather_rows(torch.stack([nats, num_tokens])[None]).sum(0).tolist()
    return total / count if count else float("nan")


def signs_of_collapse(metrics: Mapping[str, float], num_profiles: int) -> dict[str, str]:
    """What a rollout's metrics show of a policy that has collapsed, by its name, with its remedy; empty if healthy."""
    signs = {}
    if metrics["profile/distinct_share"] < (1 + 1 / num_profiles) / 2:
        signs["distinct"] = (
            f"Of a session's {num_profiles} profiles only {metrics['profile/distinct_share'] * num_profiles:.1f} "
            "differ on average, and equal ones have equal rewards: raise profile.temperature, or hold the policy near "
            "its start by rlso.kl_penalty."
        )
    if metrics["profile/repetition"] > MOST_REPETITION:
        signs["repetition"] = (
            f"Profiles write {metrics['profile/repetition']:.0%} of their runs of three words again: add a term such "
            "as - 0.5 repetition to rlso.reward, or raise rlso.kl_penalty."
        )
    if metrics["profile/copied_share"] > MOST_COPIED:
        signs["copied"] = (
            f"{metrics['profile/copied_share']:.0%} of the words of profiles are copied from titles of the history: "
            "add a term such as - 0.5 copied to rlso.reward, or raise rlso.kl_penalty."
        )
    if metrics["profile/entropy"] < LEAST_ENTROPY:
        signs["entropy"] = (
            f"The policy draws its tokens with an entropy of {metrics['profile/entropy']:.2g} nats, so that it hardly "
            "tries anything else: raise profile.temperature, or hold it near its start by rlso.kl_penalty."
        )
    return signs


class CollapseWarning:
    """Warns once in a run of each sign."""

    def __init__(self, num_profiles: int):
        self._num_profiles, self._warned_of = num_profiles, set[str]()

    def check(self, metrics: Mapping[str, float]) -> None:
        """Print the signs of a collapse that a rollout shows and none before it has shown, on rank 0."""
        signs = signs_of_collapse(metrics, self._num_profiles)
        new = [text for name, text in signs.items() if name not in self._warned_of]
        if new and rank() == 0:
            print("warning: the policy is collapsing.", *new, file=sys.stderr)
        self._warned_of |= signs.keys()
