"""How the policy is trained."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from langptune_rs.config.section import Section


class RlsoConfig(Section):
    """Reinforcement learning for system optimization of the policy (section 3.1, Eq. 6)."""

    steps: NonNegativeInt = 800
    """T: optimizer steps in each iteration. Every `epochs` steps share one rollout batch."""
    batch_size: PositiveInt = 64
    """Sessions in the global batch."""
    micro_batch_tokens: PositiveInt = 4096
    """Tokens of packed sessions in one forward pass, or one session's if it is longer. Changes memory, not the result.
    """
    gradient_checkpointing: bool = False
    """Keep only the input of each trained layer for the backward pass: less memory, about a third more time."""
    num_profiles: int = Field(default=2, ge=2)
    """Profiles sampled for each session. The loss is the mean over all their pairs."""
    epochs: PositiveInt = 4
    """Optimizer steps over each rollout batch."""
    learning_rate: PositiveFloat = 1e-6
    precision: Literal["fp32", "bf16"] = "fp32"
    """Precision of the layers that train and of log-probabilities, whatever `engine.precision` is. A step changes a
    log-ratio by hundredths of a nat, and bf16 rounds it by tenths."""
    objective: Literal["rlso"] = "rlso"
    """The loss of a step, named after its file in `training/objectives`; `rlso` is Eq. 6."""
    eta: PositiveFloat = 1.0
    kl_penalty: NonNegativeFloat = 0.0
    """gamma of Eq. 8."""
    kl_reference: Literal["initial", "iteration"] = "initial"
    """The policy before training (Eq. 8), or at the start of the iteration (Algorithm 1, line 11)."""
    overlong_reward: float = 0.0
    """Gamma: the raw reward of a profile that does not end within the limit."""
    reward: str = Field(default="ndcg", pattern=r"^(ndcg|mrr)(@[1-9][0-9]*)?$")
    """`ndcg` over the whole catalog, or `ndcg@k`, `mrr`, `mrr@k`."""
    weight_decay: NonNegativeFloat = 1e-6
