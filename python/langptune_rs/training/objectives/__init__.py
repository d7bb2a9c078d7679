"""Losses of the policy step, one file each; `rlso.objective` names the one that a recipe uses.

To add one, write `NAME.py` with a function `loss` like that of `rlso.py`, and add NAME to `RlsoConfig.objective`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from torch import Tensor

from langptune_rs.config.rlso import RlsoConfig


class Objective(Protocol):
    """The loss of each session, (B,), from its G profiles' standardised rewards and log-probabilities, each (B, G).

    Pure, and differentiable in `logps_BG`; `old_logps_BG` are those of the policy that wrote the profiles.
    """

    def __call__(self, rewards_BG: Tensor, logps_BG: Tensor, old_logps_BG: Tensor, config: RlsoConfig) -> Tensor: ...


def find_objective(name: str) -> Objective:
    """The loss function of an objective."""
    return cast(Objective, import_module(f"{__name__}.{name}").loss)
