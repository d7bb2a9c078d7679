"""Log-probabilities of profiles under the policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from langptune_rs.models.log_probs import TokenLogps
from langptune_rs.models.policy import Policy, output_matrix
from langptune_rs.training.rollout_batches import RolloutBatch


class ProfileScorer(nn.Module):
    """Log-probabilities of profiles under the policy: the module that the policy's engine trains.

    Logits are divided by the `temperature` that profiles are sampled with. Logits are computed only where a profile
    token is predicted. The log-sum-exp is in float32, since its error in bfloat16 would exceed the ratio of two
    policies. A profile's sum is in float64: over a few hundred tokens float32 rounds by 3e-5, as much as a training
    step may change it.
    """

    def __init__(self, policy: Policy, temperature: float = 1.0, *, checkpointing: bool = False):
        super().__init__()
        self.model = policy.model
        output = output_matrix(policy.model)
        self.token_logps = TokenLogps(output, policy.final_softcap, temperature, policy.gradient_dtype)
        self._policy, self._checkpointing = policy, checkpointing

    def forward(self, batch: RolloutBatch) -> Tensor:
        """Log-probabilities, float64 (sessions, profiles per session)."""
        hidden = self._policy.hidden(
            batch.states.to(batch.position_ids.device),
            batch.position_ids,
            batch.layout,
            batch.predictors,
            checkpointing=self._checkpointing,
        )
        token_logps = self.token_logps(hidden, batch.tokens).double()
        sums = token_logps.new_zeros(len(batch.sessions) * batch.num_profiles)
        logps_BG: Tensor = sums.index_add(0, batch.owners, token_logps).view(-1, batch.num_profiles)
        return logps_BG


@torch.no_grad()
def score(scorer: ProfileScorer, batches: Sequence[RolloutBatch]) -> Tensor:
    """Log-probabilities of all profiles, float64 (sessions, profiles per session), without gradients.

    NaN stands for those that are not finite, see `finite_logps`.
    """
    return in_session_order(batches, [finite_logps(scorer, batch) for batch in batches])


def finite_logps(
    forward: Callable[[RolloutBatch], Tensor],
    batch: RolloutBatch,
    lost_BG: Tensor | None = None,
    is_anywhere: Callable[[bool], bool] = bool,
) -> Tensor:
    """Log-probabilities (sessions, profiles) by `forward`, with NaN for each profile that has no finite one.

    Such profiles, those of `lost_BG` and those found here, have no part in the pass that gradients come from. It is not
    enough to leave their log-probabilities out of the loss: 0 times NaN is NaN, in the gradient of every weight and in
    the attention of the profiles beside them. `is_anywhere` tells whether a flag is set on any of the ranks that have
    to call `forward` equally often.
    """
    logps_BG = forward(batch if lost_BG is None else batch.without(lost_BG))
    failed_BG = ~logps_BG.isfinite() if lost_BG is None else ~(logps_BG.isfinite() | lost_BG)
    if is_anywhere(bool(failed_BG.any())):
        lost_BG = torch.zeros_like(failed_BG) if lost_BG is None else lost_BG
        lost_BG = lost_BG | _failed_alone(forward, batch, failed_BG, lost_BG)
        logps_BG = forward(batch.without(lost_BG))
    return logps_BG if lost_BG is None else logps_BG.masked_fill(lost_BG, math.nan)


@torch.no_grad()
def _failed_alone(
    forward: Callable[[RolloutBatch], Tensor], batch: RolloutBatch, failed_BG: Tensor, lost_BG: Tensor
) -> Tensor:
    """Those of the profiles that failed which also fail where no other one of their session did."""
    alone_BG = torch.zeros_like(failed_BG)
    for place in range(batch.num_profiles):
        others_BG = failed_BG.clone()
        others_BG[:, place] = False
        logps_BG = forward(batch.without(lost_BG | others_BG))
        alone_BG[:, place] = failed_BG[:, place] & ~logps_BG[:, place].isfinite()
    return alone_BG


def in_session_order(batches: Sequence[RolloutBatch], values: Sequence[Tensor]) -> Tensor:
    """The `values` of all micro-batches as one tensor (sessions, ...), in the order of the rollout batch's sessions."""
    sessions = np.concatenate([batch.sessions for batch in batches])
    return torch.cat(list(values))[torch.from_numpy(np.argsort(sessions)).to(values[0].device)]
