"""Log-probabilities of profiles under the policy."""

from __future__ import annotations

from collections.abc import Sequence

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
        self.token_logps = TokenLogps(output_matrix(policy.model), policy.final_softcap, temperature)
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
    """Log-probabilities of all profiles, float64 (sessions, profiles per session), without gradients."""
    return in_session_order(batches, [scorer(batch) for batch in batches])


def in_session_order(batches: Sequence[RolloutBatch], values: Sequence[Tensor]) -> Tensor:
    """The `values` of all micro-batches as one tensor (sessions, ...), in the order of the rollout batch's sessions."""
    sessions = np.concatenate([batch.sessions for batch in batches])
    return torch.cat(list(values))[torch.from_numpy(np.argsort(sessions)).to(values[0].device)]
