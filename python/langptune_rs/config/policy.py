"""The language model that writes profiles."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from langptune_rs.config.section import Section


class PolicyConfig(Section):
    """The language model that writes profiles, and which of its weights are trained."""

    model: str = "smollm2-135m-instruct"
    """An embedded model's name, a local folder in transformers' format, or a hub id."""
    train: Literal["lora", "last-layers"] = "last-layers"
    last_layers: PositiveInt = 4
    """Decoder layers that train, counted from the output, with `train = "last-layers"`."""
    train_final_norm: bool = False
    train_lm_head: bool = False
    """Train the output matrix too. Only for models whose output is not tied to the input embeddings."""
    lora_rank: PositiveInt = 16
    lora_alpha: PositiveFloat = 32
