"""The DeepSpeed engines of both models."""

from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from langptune_rs.config.section import Section


class EngineConfig(Section):
    """DeepSpeed settings shared by both engines."""

    zero_stage: int = Field(default=0, ge=0, le=3)
    precision: Literal["fp32", "bf16"] = "bf16"
    """Compute precision; master weights are float32 in either. What it leaves to `rlso.precision` is said there."""
    offload: Literal["none", "optimizer", "parameters"] = "none"
    """What is kept in CPU memory, which fits a larger model but slows its steps. `optimizer` needs ZeRO stage 1 or
    higher; `parameters`, the optimizer and the weights that are not in use at the moment, needs stage 3."""
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
