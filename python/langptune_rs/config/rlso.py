"""How the policy is trained."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from langptune_rs.config.reward import LARGEST, SMALLEST, parse_reward
from langptune_rs.config.section import Section


class RlsoConfig(Section):
    """Reinforcement learning for system optimization of the policy (section 3.1, Eq. 6)."""

    steps: NonNegativeInt = 800
    """T: optimizer steps in each iteration. Every `epochs` steps share one rollout batch."""
    batch_size: PositiveInt = 64
    """Sessions in the global batch."""
    micro_batch_tokens: PositiveInt = 4096
    """Tokens of packed sessions in one forward pass, or one session's if it is longer. It changes memory, and
    results by rounding alone."""
    gradient_checkpointing: bool = False
    """Keep only the input of each trained layer for the backward pass: less memory, about a third more time."""
    num_profiles: int = Field(default=2, ge=2)
    """Profiles sampled for each session. The loss is the mean over all their pairs."""
    epochs: PositiveInt = 4
    """Optimizer steps over each rollout batch."""
    learning_rate: PositiveFloat = 1e-6
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the layers that train and of log-probabilities, whatever `engine.precision` is. A step changes a
    log-ratio by hundredths of a nat, and bf16 rounds it by tenths. Gradients are not as delicate: with "bf16" in
    `engine.precision`, hardware that is faster in it multiplies them in it."""
    objective: Literal["rlso", "rloo", "grpo", "dpo"] = "rlso"
    """The loss of a step, named after its file in `training/objectives`; `rlso` is Eq. 6."""
    eta: float = Field(default=1.0, ge=SMALLEST, le=LARGEST)
    """Of Eq. 6: how far a step of rewards moves the log-ratio. `dpo` has the beta 1/eta."""
    clip_epsilon: float = Field(default=0.2, gt=0, lt=1)
    """Of `grpo`: how far from 1 the ratio of a profile's probabilities earns anything. 0.2 is PPO's."""
    kl_penalty: float = Field(default=0.0, ge=0, le=LARGEST)
    """gamma of Eq. 8."""
    kl_reference: Literal["initial", "iteration"] = "initial"
    """The policy before training (Eq. 8), or at the start of the iteration (Algorithm 1, line 11)."""
    overlong_reward: float = Field(default=0.0, ge=-LARGEST, le=LARGEST)
    """Gamma: the raw reward of a profile that does not end within the limit, in place of what it earned."""
    overlong_penalty: float | None = Field(default=None, ge=0, le=LARGEST)
    """Subtracted from what a profile earned that does not end within the limit; `overlong_reward` is then not used."""
    reward: str = "ndcg"
    """A sum of terms with weights, such as `ndcg + 0.05 log_softmax - 0.1 copied`. The recommender's: `ndcg` and `mrr`
    over the whole catalog, or cut as in `ndcg@20`; `log_rank`, which is -ln rank; `log_softmax`, which is ln softmax of
    the target's score over the catalog less the history. Each is the mean over the targets of a session. The profile's
    own: `length` (the share of `profile.max_tokens`), `copied` (the share of words in runs of three or more from titles
    of the history), `repetition` (the share of runs of three words that it has written before)."""
    reward_temperature: float = Field(default=0.07, ge=1e-3, le=1e3)
    """Temperature of the softmax in `log_softmax`."""
    standardize: Literal["batch", "session", "leave-one-out"] = "batch"
    """Rewards have zero mean and unit variance over the global `batch` or in each `session`. `leave-one-out` takes from
    each the mean of its session's other profiles, and scales these differences over the batch."""
    weight_decay: NonNegativeFloat = 1e-6

    @field_validator("reward")
    @classmethod
    def _check_reward(cls, reward: str) -> str:
        parse_reward(reward)
        return reward
