"""Losses of the policy step, one file each; the key `rlso.objective` names the one that a recipe uses.

To add one, write `NAME.py` with a function `loss` like that of `rlso.py`, and add NAME to `RlsoConfig.objective`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from torch import Tensor

from langptune_rs.config.rlso import RlsoConfig


class Objective(Protocol):
    """The loss of each session, (B,), from standardised rewards and log-probabilities of its G profiles, each (B, G).

    A pure function, differentiable in `logps_BG`. `old_logps_BG` comes from the policy that wrote the profiles.
    """

    def __call__(self, rewards_BG: Tensor, logps_BG: Tensor, old_logps_BG: Tensor, config: RlsoConfig) -> Tensor: ...


def find_objective(name: str) -> Objective:
    """The loss function of the objective `name`."""
    return cast(Objective, import_module(f"{__name__}.{name}").loss)
