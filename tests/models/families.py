"""Models of transformers' families with random weights, and policies of them."""

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.models.attention import PACKED
from langptune_rs.models.policy import Policy

SIZES = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
SHAPE = SIZES | {"intermediate_size": 48, "num_key_value_heads": 2, "initializer_range": 0.2}


def model_of(family: str, **settings: object) -> PreTrainedModel:
    """A model of one of transformers' families, with random weights."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(
        **SHAPE | settings, bos_token_id=0, eos_token_id=1, pad_token_id=0
    )
    name = "GPT2LMHeadModel" if family == "GPT2" else f"{family}ForCausalLM"
    return getattr(transformers, name)(config)


def policy_of(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **settings: object) -> Policy:
    """The policy of a model, of which the last layer trains."""
    model.set_attn_implementation(PACKED)
    return Policy.for_training(model, tokenizer, PolicyConfig(model="theirs", last_layers=1, **settings))
