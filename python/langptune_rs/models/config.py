"""Configuration of the policy and the embedder. Imports no model library."""

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from langptune_rs.config_base import Section


class PolicyConfig(Section):
    """The language model that writes profiles, and which of its weights are trained."""

    model: str = "smollm2-135m-instruct"
    """An embedded model's name, a local folder in transformers' format, or a hub id."""
    train: Literal["lora", "last-layers"] = "last-layers"
    last_layers: PositiveInt = 4
    """Decoder layers that train, counted from the output, with `train = "last-layers"`."""
    train_final_norm: bool = False
    train_lm_head: bool = False
    """Only for models whose head is not tied to the input embeddings."""
    lora_rank: PositiveInt = 16
    lora_alpha: PositiveFloat = 32


class EmbedderConfig(Section):
    """The text encoder that embeds profiles and items."""

    model: str = "all-minilm-l6-v2"
    """An embedded model's name, a local SentenceTransformer folder, or a hub id."""
    dim: PositiveInt | None = None
    """Keep the first `dim` coordinates (Matryoshka truncation), normalised again; none keeps all."""
    max_tokens: PositiveInt = 256
    """Longer texts are cut here; at most the encoder's own limit."""
    query_prompt: str = ""
    """Put before a profile, never before an item. The paper uses none."""
