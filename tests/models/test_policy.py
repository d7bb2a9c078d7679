"""Which models can be a policy."""

import pytest
from tests.experiments.tiny import make_models
from transformers import AutoTokenizer, GraniteConfig, GraniteForCausalLM, LlamaConfig, LlamaForCausalLM

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.attention import PACKED
from langptune_rs.models.policy import Policy

SHAPE = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder, _ = make_models(tmp_path_factory.mktemp("models"))
    return AutoTokenizer.from_pretrained(folder)


def policy(model, tokenizer) -> Policy:
    model.set_attn_implementation(PACKED)
    return Policy.for_training(model, tokenizer, PolicyConfig(model="theirs", last_layers=1))


def test_a_plain_decoder_is_taken(tokenizer):
    assert policy(LlamaForCausalLM(LlamaConfig(**SHAPE)), tokenizer).cut == 1


@pytest.mark.parametrize(
    "scale", [{"embedding_multiplier": 12.0}, {"logits_scaling": 8.0}, {"residual_multiplier": 0.2}], ids=str
)
def test_a_model_that_scales_what_its_layers_make_is_refused(tokenizer, scale):
    """Granite's layers have the parts of Llama's."""
    model = GraniteForCausalLM(GraniteConfig(**SHAPE, **scale))
    with pytest.raises(ModelError, match=r"'theirs' \(granite\) does more with its tokens"):
        policy(model, tokenizer)


def test_positions_that_depend_on_the_batch_are_refused(tokenizer):
    rotary = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=rotary))
    with pytest.raises(ModelError, match="dynamic positions"):
        policy(model, tokenizer)
