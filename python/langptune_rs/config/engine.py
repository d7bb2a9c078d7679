"""The DeepSpeed engines of both models."""

from typing import Literal

from pydantic import Field, PositiveFloat, model_validator

from langptune_rs.config.section import Section


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
