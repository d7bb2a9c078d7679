"""Losses of the policy step, one file each; the key `rlso.objective` names the one that a recipe uses.

To add one, write `NAME.py` with a function `loss` like that of `rlso.py`, and add NAME to `RlsoConfig.objective`.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import torch
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

    def of_session(self, session: int, kept_G: Tensor) -> ScoredProfiles:
        """The profiles `kept_G`, bool (G,), of one session."""
        return ScoredProfiles(
            self.rewards_BG[session, kept_G][None],
            self.logps_BG[session, kept_G][None],
            self.old_logps_BG[session, kept_G][None],
        )


class Objective(Protocol):
    """The loss of each session, (B,): a pure function of its profiles, differentiable in their `logps_BG`."""

    def __call__(self, profiles: ScoredProfiles, config: RlsoConfig) -> Tensor: ...


def find_objective(name: str) -> Objective:
    """The loss function of the objective `name`."""
    return cast(Objective, import_module(f"{__name__}.{name}").loss)


def losses_of_usable(objective: Objective, profiles: ScoredProfiles, config: RlsoConfig) -> tuple[Tensor, Tensor]:
    """The loss of each session over its usable profiles, and the share of its pairs that they make up, both (B,).

    A profile is usable if its reward and both log-probabilities are finite. A session with less than two such profiles
    has the loss 0 and the share 0.
    """
    usable_BG = torch.stack([profiles.rewards_BG, profiles.logps_BG, profiles.old_logps_BG]).isfinite().all(0)
    shares_B = shares_of_usable(usable_BG)
    if usable_BG.all():
        return objective(profiles, config), shares_B
    nothing = profiles.logps_BG.masked_fill(~usable_BG, 0).sum() * 0  # so that backward has somewhere to go
    losses = [
        objective(profiles.of_session(session, kept_G), config)[0] if share else nothing
        for session, (kept_G, share) in enumerate(zip(usable_BG, shares_B.tolist(), strict=True))
    ]
    return torch.stack(losses) + nothing, shares_B


def shares_of_usable(usable_BG: Tensor) -> Tensor:
    """The share of each session's pairs, float64 (B,), of which both profiles are usable."""
    num_usable_B, num_profiles = usable_BG.sum(1).double(), usable_BG.shape[1]
    return num_usable_B * (num_usable_B - 1) / (num_profiles * (num_profiles - 1))
