"""Configuration of training and of everything around it. Imports no training library."""

from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from langptune_rs.config_base import Section


class ContrastiveConfig(Section):
    """Contrastive training of the embedder (section 3.2, Eq. 7)."""

    steps: NonNegativeInt = 800
    """J: optimizer steps in each iteration."""
    batch_size: PositiveInt = 256
    """Profiles in the global batch; the targets of the others are the negatives."""
    micro_batch_tokens: PositiveInt = 8192
    """Tokens of texts in one forward pass, or one text's if it is longer. Changes memory and time, not the result: what
    fits into one micro-batch on each process is embedded once, the rest a second time for its gradients."""
    learning_rate: PositiveFloat = 1e-5
    temperature: PositiveFloat = 0.1
    """Divides the similarities; 1.0 is Eq. 7 to the letter."""
    popularity_correction: bool = False
    """Correct for popular items being negatives more often than others; the paper does not."""
    weight_decay: NonNegativeFloat = 1e-6


class RlsoConfig(Section):
    """Reinforcement learning for system optimization of the policy (section 3.1, Eq. 6)."""

    steps: NonNegativeInt = 800
    """T: optimizer steps in each iteration; every `epochs` of them share one rollout batch."""
    batch_size: PositiveInt = 64
    """Sessions in the global batch."""
    micro_batch_tokens: PositiveInt = 8192
    """Tokens of packed sessions in one forward pass, or one session's if it is longer. Changes memory, not the result.
    """
    gradient_checkpointing: bool = False
    """Keep the input of each trained layer alone for the backward pass: less memory, about a third more time."""
    num_profiles: int = Field(2, ge=2)
    """Profiles sampled for each session; the loss is the mean over all their pairs."""
    epochs: PositiveInt = 4
    """Optimizer steps over each rollout batch."""
    learning_rate: PositiveFloat = 1e-6
    eta: PositiveFloat = 1.0
    kl_penalty: NonNegativeFloat = 0.0
    """gamma of Eq. 8."""
    kl_reference: Literal["initial", "iteration"] = "initial"
    """The policy before training (Eq. 8), or at the start of the iteration (Algorithm 1, line 11)."""
    overlong_reward: float = 0.0
    """Gamma: the raw reward of a profile that does not end within the limit."""
    reward: str = Field("ndcg", pattern=r"^(ndcg|mrr)(@[1-9][0-9]*)?$")
    """`ndcg` over the whole catalog, or `ndcg@k`, `mrr`, `mrr@k`."""
    weight_decay: NonNegativeFloat = 1e-6


class EngineConfig(Section):
    """DeepSpeed settings shared by both engines."""

    zero_stage: int = Field(0, ge=0, le=3)
    precision: Literal["fp32", "bf16"] = "bf16"
    """Compute precision; master weights are float32 in either."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """Keep the optimizer (from ZeRO stage 1 on), or the optimizer and the weights that an engine does not need at the
    moment (stage 3), in the memory of the CPU: fits a larger model, at the price of slower steps."""
    max_grad_norm: PositiveFloat | None = None

    @model_validator(mode="after")
    def _check_offload(self) -> "EngineConfig":
        if self.offload == "optimizer" and self.zero_stage == 0:
            raise ValueError(
                'engine.offload = "optimizer" needs ZeRO: set engine.zero_stage = 1, 2 or 3, or offload = "none"'
            )
        if self.offload == "parameters" and self.zero_stage < 3:
            raise ValueError(
                f'engine.offload = "parameters" needs engine.zero_stage = 3, not {self.zero_stage}: below it every '
                'rank holds all weights. Set it to 3, or engine.offload = "optimizer"'
            )
        return self


class CheckpointConfig(Section):
    """When the state of a run is saved, beside the end of every phase."""

    every: PositiveInt = 50
    """Optimizer steps between checkpoints."""
    keep: PositiveInt = 2
    """Newest checkpoints kept."""


class EvaluationConfig(Section):
    """The comparison at the end of a run."""

    max_sessions: PositiveInt | None = None
    """Evaluate this many sessions of a split at most; none means every one."""
    validation_sessions: NonNegativeInt = 200
    """Validation sessions scored after every phase; 0 scores none."""
    k: PositiveInt = 20
    samples: NonNegativeInt = 1
    """Sampled profiles for each test session, scored beside the greedy one."""


class LoggingConfig(Section):
    """Where metrics go beside metrics.jsonl."""

    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = "langptune"
