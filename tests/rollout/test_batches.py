"""Profiles by the kernels of the core are those of transformers' own layers."""

from pathlib import Path

import pytest
import torch
from tests.experiments.tiny import make_models
from tests.models import families
from tests.models.families import policy_of
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.llama.modeling_llama import LlamaMLP

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.models import linear
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.batches import FusedReader, PackedReader, reading
from langptune_rs.rollout.sampling import Profiles, write_profiles

LAYERS = {"num_hidden_layers": 3}
FUSABLE = {
    "Llama": {},
    "Mistral": {"head_dim": 12, "sliding_window": None},
    "Qwen2": {},  # biases of queries, keys and values
    "Qwen3": {"head_dim": 24},  # norms of queries and keys
    "Gemma": {"head_dim": 8},  # weights of norms plus 1, another gate
    "Phi3": {},  # one matrix for queries, keys and values, and one for both halves of the gate
}
OTHERS = {
    "Mixtral": {"num_local_experts": 4},
    "GPTNeoX": {},
    "Phi": {},
    "StableLm": {},
    "Olmo": {},
    "Nemotron": {},
    "Starcoder2": {},
}
PROMPTS = [[7, 9, 30, 31], [7, 9, 40], [7, 9, *range(50, 90)]]
OPTIONS = {"max_tokens": 6, "temperatures": [0.0, 1.0, 1.0], "seeds": [1, 2, 3], "keep_states": True}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder, _ = make_models(tmp_path_factory.mktemp("models"))
    return AutoTokenizer.from_pretrained(folder)


def model_of(family: str, **settings: object) -> PreTrainedModel:
    """A model of a family, with random weights, those of norms and biases too."""
    model = families.model_of(family, **LAYERS, **settings)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                weight += 0.3 * torch.randn_like(weight)
    return model


def by_transformers(policy: Policy) -> Profiles:
    """The same profiles by the layers as they are."""
    policy.__dict__["is_fusable"] = False
    try:
        with reading(policy) as reader:
            assert isinstance(reader, PackedReader)
        return write_profiles(policy, PROMPTS, **OPTIONS)
    finally:
        del policy.__dict__["is_fusable"]


@pytest.mark.parametrize("train", ["last-layers", "lora"])
@pytest.mark.parametrize("family", FUSABLE)
def test_both_ways_write_the_same(family: str, train: str, tokenizer: PreTrainedTokenizerBase) -> None:
    theirs = policy_of(model_of(family, **FUSABLE[family]), tokenizer, train=train)
    if train == "lora":
        with torch.no_grad():
            for name, weight in theirs.model.named_parameters():
                if "lora_B" in name:
                    weight += 0.1 * torch.randn_like(weight)
    with reading(theirs) as reader:
        assert isinstance(reader, FusedReader)
    fused, plain = write_profiles(theirs, PROMPTS, **OPTIONS), by_transformers(theirs)
    assert fused.tokens == plain.tokens
    assert fused.states is not None
    assert plain.states is not None
    for ours, own in zip(
        fused.states.prompts + fused.states.profiles, plain.states.prompts + plain.states.profiles, strict=True
    ):
        torch.testing.assert_close(ours, own, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("by_torch", [False, True], ids=["core", "torch"])
@pytest.mark.parametrize("family", FUSABLE)
def test_bfloat16_differs_by_its_rounding(
    family: str, by_torch: bool, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The states at the cut, behind two layers, against those of the same weights in float32."""
    monkeypatch.setattr(linear, "has_bf16_products", lambda: by_torch)  # torch's work on any CPU, if slowly
    model = model_of(family, **FUSABLE[family]).bfloat16()
    narrow = policy_of(model, tokenizer)
    written = write_profiles(narrow, PROMPTS, **OPTIONS | {"max_tokens": 1})
    wide = policy_of(model.float(), tokenizer)
    expected = write_profiles(wide, PROMPTS, **OPTIONS | {"max_tokens": 1})
    assert written.states is not None
    assert expected.states is not None
    for ours, own in zip(written.states.prompts, expected.states.prompts, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - own).norm() < 0.02 * own.norm()


@pytest.mark.parametrize("family", OTHERS)
def test_layers_that_the_core_does_not_know_are_run_as_they_are(
    family: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert not policy_of(model_of(family, **OTHERS[family]), tokenizer).is_fusable


class Louder(LlamaMLP):
    """The parts of Llama's feed-forward network, with another result."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1.01 * super().forward(x)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_layers_with_known_parts_that_compute_something_else_are_run_as_they_are(
    layer: int, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = LlamaForCausalLM(LlamaConfig(**families.SHAPE | LAYERS))
    model.model.layers[layer].mlp.__class__ = Louder
    theirs = policy_of(model, tokenizer)
    assert not theirs.is_fusable
    written = write_profiles(theirs, PROMPTS, max_tokens=5, temperatures=[0.0])
    for prompt, tokens in zip(PROMPTS, written.tokens, strict=True):
        own = theirs.model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0]
        assert own[len(prompt) - 1 : -1].argmax(-1).tolist() == tokens


def test_states_are_the_same_bits_in_any_batch(tokenizer: PreTrainedTokenizerBase) -> None:
    theirs = policy_of(model_of("Llama"), tokenizer)
    together = write_profiles(theirs, PROMPTS, **OPTIONS)
    assert together.states is not None
    for i, prompt in enumerate(PROMPTS):
        alone = write_profiles(theirs, [prompt], **OPTIONS | {"seeds": [i + 1]})
        assert alone.states is not None
        assert torch.equal(alone.states.prompts[0], together.states.prompts[i])
        for sample in range(3):
            assert torch.equal(alone.states.profiles[sample], together.states.profiles[3 * i + sample])


def test_a_saved_adapter_writes_as_before(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    model_of("Llama").save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    config = PolicyConfig(model=str(tmp_path / "base"), train="lora")
    trained = Policy.load(config)
    with torch.no_grad():
        for name, weight in trained.model.named_parameters():
            if "lora_B" in name:
                weight += 0.1 * torch.randn_like(weight)
    trained.save(tmp_path / "adapter")
    opened = Policy.from_folder(tmp_path / "adapter", config)
    assert opened.is_fusable
    assert write_profiles(opened, PROMPTS, **OPTIONS).tokens == write_profiles(trained, PROMPTS, **OPTIONS).tokens
