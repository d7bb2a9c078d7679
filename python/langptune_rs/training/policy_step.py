"""RLSO: the policy learns from the difference between two of its own profiles (section 3.1, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.distributed.collectives import gather_rows, world_size
from langptune_rs.files import write_atomically
from langptune_rs.models.log_probs import TokenLogps
from langptune_rs.models.policy import Policy
from langptune_rs.runs.saving import not_written
from langptune_rs.training.checkpoints import last_checkpoint
from langptune_rs.training.engines import optimizer_step, set_learning_rate
from langptune_rs.training.rollout_batches import RolloutBatch


def rlso_loss(rewards_BG: Tensor, logps_BG: Tensor, old_logps_BG: Tensor, eta: float) -> Tensor:
    """Squared loss of Eq. 6 for each session, (B,): the mean over the pairs of its G profiles.

    With p and p' two profiles of one session, a pair's loss is
    ((r - r') - (1/eta) (ln pi(p)/pi_t(p) - ln pi(p')/pi_t(p')))^2.
    """
    residual_BG = rewards_BG - (logps_BG - old_logps_BG) / eta
    first, second = torch.triu_indices(residual_BG.shape[1], residual_BG.shape[1], offset=1)
    return (residual_BG[:, first] - residual_BG[:, second]).square().mean(1)


def standardize(rewards: Tensor) -> Tensor:
    """Zero mean and unit variance over all entries, those of the global batch (section 4.3); all zero if they agree."""
    if rewards.max() == rewards.min():
        return torch.zeros_like(rewards)
    centered = rewards - rewards.mean()
    return centered / centered.square().mean().sqrt()


def penalize(rewards: Tensor, logps: Tensor, reference_logps: Tensor, gamma: float) -> Tensor:
    """Eq. 8: the reward less gamma times the log-ratio to the reference policy."""
    return rewards - gamma * (logps - reference_logps)


class ProfileScorer(nn.Module):
    """Log-probabilities of profiles under the policy: the module that the policy's engine trains.

    The distribution is the one profiles are sampled from, so logits are divided by the same `temperature`. Only the
    positions that predict a profile token meet the output matrix, and the log-sum-exp is in float32: in bfloat16 its
    error would swamp the ratio of two policies. For the same reason a profile's sum is in float64: one of a few hundred
    tokens rounds by 3e-5 in float32, as much as a step of training may move it.
    """

    def __init__(self, policy: Policy, temperature: float = 1.0, *, checkpointing: bool = False):
        super().__init__()
        self.model = policy.model
        self.token_logps = TokenLogps(policy.model.get_output_embeddings(), policy.final_softcap, temperature)
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
        return sums.index_add(0, batch.owners, token_logps).view(-1, batch.num_profiles)


class ReferenceWeights:
    """The trainable weights of an earlier policy, kept so that its log-probabilities can be computed at any time."""

    def __init__(self, module: nn.Module):
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self.weights = [p.detach().clone() for p in self._parameters]

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the module compute with the reference weights inside the block; nothing is copied."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def save(self, path: Path) -> None:
        """Write the weights as safetensors, numbered in the module's order. Raises `RunError` when the disk is full."""
        weights = {str(i): weight.contiguous() for i, weight in enumerate(self.weights)}
        try:
            write_atomically(path, lambda temporary: save_file(weights, temporary))
        except (OSError, SafetensorError) as error:
            raise not_written(path, error, last_checkpoint(path.parent)) from error

    def load(self, path: Path) -> None:
        """Take the weights that `save` wrote."""
        saved = load_file(path)
        self.weights = [saved[str(i)].to(weight.device) for i, weight in enumerate(self.weights)]

    def _swap(self) -> None:
        for i, parameter in enumerate(self._parameters):
            parameter.data, self.weights[i] = self.weights[i], parameter.data


@torch.no_grad()
def score(scorer: ProfileScorer, batches: Sequence[RolloutBatch]) -> Tensor:
    """Log-probabilities of all profiles, float64 (sessions, profiles per session), without gradients."""
    return in_session_order(batches, [scorer(batch) for batch in batches])


def in_session_order(batches: Sequence[RolloutBatch], values: Sequence[Tensor]) -> Tensor:
    """One tensor with a row for each session of the rollout batch, from those of its micro-batches."""
    sessions = np.concatenate([batch.sessions for batch in batches])
    return torch.cat(list(values))[torch.from_numpy(np.argsort(sessions)).to(values[0].device)]


def rlso_step(
    engine,
    batches: Sequence[RolloutBatch],
    rewards_BG: Tensor,
    old_logps_BG: Tensor | None,
    config: RlsoConfig,
    learning_rate: float,
) -> tuple[Tensor, dict[str, float]]:
    """One optimizer step over the global batch; arguments hold this rank's sessions, rewards already standardised.

    The loss is the mean over all sessions of all ranks, so it does not depend on how they are cut into micro-batches.
    Without `old_logps_BG` the policy is still the one that wrote the profiles, and its log-probabilities are the old
    ones. Returns those, and what to log.
    """
    losses, logps = [], []
    for batch in batches:
        rows = torch.from_numpy(batch.sessions).to(rewards_BG.device)
        logps_BG = engine(batch)
        old_BG = logps_BG.detach() if old_logps_BG is None else old_logps_BG[rows]
        loss_B = rlso_loss(rewards_BG[rows], logps_BG, old_BG, config.eta)
        engine.backward(loss_B.sum() / config.batch_size * world_size())
        losses.append(loss_B.detach())
        logps.append(logps_BG.detach())
    set_learning_rate(engine, learning_rate)
    norm = optimizer_step(engine)
    old_logps_BG = in_session_order(batches, logps) if old_logps_BG is None else old_logps_BG
    return old_logps_BG, {
        "rlso/loss": gather_rows(in_session_order(batches, losses)).mean().item(),
        "rlso/grad_norm": norm,
        "rlso/learning_rate": learning_rate,
    }
