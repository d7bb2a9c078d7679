"""Losses of the policy step, one file each; the key `rlso.objective` names the one that a recipe uses.

To add one, write `NAME.py` with a function `loss` like that of `rlso.py`, and add NAME to `RlsoConfig.objective`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

from torch import Tensor

from langptune_rs.config.rlso import RlsoConfig


@dataclass(frozen=True)
class ScoredProfiles:
    """What is known of the G profiles of each of B sessions."""

    rewards_BG: Tensor
    """Standardised rewards, (B, G)."""
    logps_BG: Tensor
    """Log-probabilities by the policy that is trained, (B, G); gradients flow into these."""
    old_logps_BG: Tensor
    """Log-probabilities by the policy that wrote the profiles, (B, G)."""


class Objective(Protocol):
    """The loss of each session, (B,): a pure function of its profiles, differentiable in their `logps_BG`."""

    def __call__(self, profiles: ScoredProfiles, config: RlsoConfig) -> Tensor: ...


def find_objective(name: str) -> Objective:
    """The loss function of the objective `name`."""
    return cast(Objective, import_module(f"{__name__}.{name}").loss)
