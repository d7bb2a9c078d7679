"""RLSO: the policy learns from the difference between two of its own profiles (section 3.1, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from langptune_rs.files import write_atomically
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.training.checkpoints import last_checkpoint
from langptune_rs.training.config import RlsoConfig
from langptune_rs.training.engines import gather_rows, optimizer_step, set_learning_rate, world_size
from langptune_rs.training.saving import not_written


def rlso_loss(rewards_BG: Tensor, logps_BG: Tensor, old_logps_BG: Tensor, eta: float) -> Tensor:
    """Squared loss of Eq. 6 for each session, float32 (B,): the mean over the pairs of its G profiles.

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
    """Log-probabilities of profiles under the policy's head: the module that the policy's engine trains.

    The distribution is the one profiles are sampled from, so logits are divided by the same `temperature`. Only the
    positions that predict a profile token meet the output matrix, and the log-sum-exp is in float32: in bfloat16 its
    error would swamp the ratio of two policies.
    """

    def __init__(self, head: nn.Module, temperature: float = 1.0):
        super().__init__()
        self.head = head
        self.temperature = temperature

    def forward(self, batch: RolloutBatch) -> Tensor:
        """Log-probabilities, float32 (sessions, profiles per session)."""
        hidden = self.head.get_decoder()(
            inputs_embeds=batch.hidden,
            attention_mask=batch.attention_mask,
            position_ids=batch.position_ids,
            use_cache=False,
        ).last_hidden_state
        predicting = hidden.flatten(0, 1)[batch.predictors]
        logits = self.head.get_output_embeddings()(predicting).float()
        softcap = getattr(self.head.config, "final_logit_softcapping", None)
        if softcap:
            logits = torch.tanh(logits / softcap) * softcap
        logits = logits / self.temperature
        token_logps = logits.gather(-1, batch.tokens[:, None]).squeeze(1) - logits.logsumexp(-1)
        sums = token_logps.new_zeros(len(hidden) * batch.num_profiles)
        return sums.index_add(0, batch.owners, token_logps).view(-1, batch.num_profiles)


@dataclass(frozen=True)
class RolloutBatch:
    """A few sessions, one row each: the prompt once, then its profiles one after the other.

    A profile attends to the prompt and to itself, and its positions go on from the prompt, so each profile is scored
    as if it stood alone behind the prompt.
    """

    hidden: Tensor
    """(sessions, length, width): what the frozen trunk gives, the input of the policy's head."""
    attention_mask: Tensor
    """bool (sessions, 1, length, length)."""
    position_ids: Tensor
    predictors: Tensor
    """int64 (profile tokens,): where in the flattened rows each profile token is predicted."""
    tokens: Tensor
    """int64 (profile tokens,)."""
    owners: Tensor
    """int64 (profile tokens,): which profile each belongs to, session-major."""
    num_profiles: int

    def __len__(self) -> int:
        return len(self.hidden)


def make_rollout_batches(
    policy: Policy, prompts: Sequence[Sequence[int]], profiles: Profiles, num_profiles: int, sessions_each: int
) -> list[RolloutBatch]:
    """Micro-batches of `sessions_each` sessions, in order; the trunk runs here, once for all later passes."""
    batches = []
    for start in range(0, len(prompts), sessions_each):
        end = start + sessions_each
        written = profiles.tokens[start * num_profiles : end * num_profiles]
        batches.append(_rollout_batch(policy, prompts[start:end], written, num_profiles))
    return batches


def _rollout_batch(
    policy: Policy, prompts: Sequence[Sequence[int]], profiles: Sequence[Sequence[int]], num_profiles: int
) -> RolloutBatch:
    rows = [profiles[i * num_profiles : (i + 1) * num_profiles] for i in range(len(prompts))]
    length = max(len(p) + sum(map(len, row)) for p, row in zip(prompts, rows, strict=True))
    input_ids = np.zeros((len(prompts), length), dtype=np.int64)
    position_ids = np.zeros((len(prompts), length), dtype=np.int64)
    segments = np.full((len(prompts), length), -1)
    predictors, owners = [], []
    for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        end = len(prompt)
        input_ids[i, :end], position_ids[i, :end], segments[i, :end] = prompt, np.arange(end), 0
        for g, profile in enumerate(row):
            start, end = end, end + len(profile)
            input_ids[i, start:end] = profile
            position_ids[i, start:end] = len(prompt) + np.arange(len(profile))
            segments[i, start:end] = g + 1
            predictors += [i * length + len(prompt) - 1, *range(i * length + start, i * length + end - 1)]
            owners += [i * num_profiles + g] * len(profile)
    device = policy.model.device
    ids, positions, segments_BL = (torch.from_numpy(x).to(device) for x in (input_ids, position_ids, segments))
    attention_mask = shared_prompt_mask(segments_BL)
    return RolloutBatch(
        hidden=policy.trunk(ids, attention_mask, positions),
        attention_mask=attention_mask,
        position_ids=positions,
        predictors=torch.tensor(predictors, device=device),
        tokens=torch.tensor([token for profile in profiles for token in profile], device=device),
        owners=torch.tensor(owners, device=device),
        num_profiles=num_profiles,
    )


def shared_prompt_mask(segments_BL: Tensor) -> Tensor:
    """Who may attend to whom, bool (batch, 1, length, length), from segments: 0 prompt, g profile g, -1 padding.

    Causal; a profile sees the prompt and itself. Padding sees only itself, so that no row of the softmax is empty.
    """
    query, key = segments_BL[:, :, None], segments_BL[:, None, :]
    length = segments_BL.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments_BL.device).tril()
    visible = causal & ((key == 0) | (key == query)) & (query >= 0)
    itself = torch.eye(length, dtype=torch.bool, device=segments_BL.device)
    return (visible | itself)[:, None]


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
    """Log-probabilities of all profiles, float32 (sessions, profiles per session), without gradients."""
    return torch.cat([scorer(batch) for batch in batches])


def rlso_step(
    engine,
    batches: Sequence[RolloutBatch],
    rewards_BG: Tensor,
    old_logps_BG: Tensor,
    config: RlsoConfig,
    learning_rate: float,
) -> dict[str, float]:
    """One optimizer step over the global batch; arguments hold this rank's sessions, rewards already standardised.

    The loss is the mean over all sessions of all ranks, so it does not depend on how they are cut into micro-batches.
    """
    losses, start = [], 0
    for batch in batches:
        rows = slice(start, start + len(batch))
        start = rows.stop
        loss_B = rlso_loss(rewards_BG[rows], engine(batch), old_logps_BG[rows], config.eta)
        engine.backward(loss_B.sum() / config.batch_size * world_size())
        losses.append(loss_B.detach())
    set_learning_rate(engine, learning_rate)
    norm = optimizer_step(engine)
    return {
        "rlso/loss": gather_rows(torch.cat(losses)).double().mean().item(),
        "rlso/grad_norm": norm,
        "rlso/learning_rate": learning_rate,
    }
