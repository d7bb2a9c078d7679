"""Which models can be a policy: those that write and learn, run over packed rows, as their own forward pass does."""

import copy
from pathlib import Path

import pytest
import torch
from tests.experiments.tiny import make_models
from tests.models.families import SHAPE, model_of, policy_of
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaDecoderLayer

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.errors import ModelError
from langptune_rs.models import acceptance
from langptune_rs.models.attention import PACKED
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.sampling import write_profiles
from langptune_rs.training.rollout_batches import pack_rollout
from langptune_rs.training.scorer import ProfileScorer

EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "head_dim": 8}
SUPPORTED = {
    "Llama": {},
    "Qwen3": {"head_dim": 8},
    "Gemma": {"head_dim": 8},
    "StableLm": {},  # its layers pass on no arguments to their attention
    "Phi": {},  # attention and feed-forward network side by side, a final norm by another name
    "GPTNeoX": {},
    "Mixtral": {"num_local_experts": 4},
    "Qwen3Moe": EXPERTS,
    "Olmo": {},  # norms without weights
    "Nemotron": {},
    "Starcoder2": {},
}
REFUSED = {
    "Falcon": {},
    "Gemma2": {"head_dim": 8},
    "GPT2": {},
    "OPT": {},
    "Bloom": {},
    "Mpt": {},
    "GPTJ": {"rotary_dim": 4},
}
DTYPES = [torch.float32, torch.bfloat16]
PROMPTS = [[7, 9, 30, 31], [7, 9, 40], [7, 9, 50, 51, 52, 53, 54]]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    folder, _ = make_models(tmp_path_factory.mktemp("models"))
    return AutoTokenizer.from_pretrained(folder)


def alone(policy: Policy, prompt: list[int], tokens: list[int]) -> torch.Tensor:
    """The log-probability of a profile by the model's own forward pass over it alone."""
    logits = policy.model(input_ids=torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(tokens)[:, None]).sum()


@pytest.mark.parametrize("family", SUPPORTED)
def test_every_supported_family_writes_and_learns_as_its_own_forward_pass_does(
    family: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    theirs = policy_of(model_of(family, **SUPPORTED[family]), tokenizer)
    options = {"max_tokens": 5, "temperatures": [0.0, 1.0]}
    written = write_profiles(theirs, PROMPTS, seeds=[1, 2, 3], keep_states=True, **options)
    for i, prompt in enumerate(PROMPTS):
        single = write_profiles(theirs, [prompt], seeds=[i + 1], **options)
        assert written.tokens[2 * i : 2 * i + 2] == single.tokens
        own = theirs.model(input_ids=torch.tensor([[*prompt, *single.tokens[0]]])).logits[0]
        assert own[len(prompt) - 1 : -1].argmax(-1).tolist() == single.tokens[0]

    expected = torch.stack([alone(theirs, PROMPTS[i // 2], tokens) for i, tokens in enumerate(written.tokens)])
    trained = [weight for weight in theirs.model.parameters() if weight.requires_grad]
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.5, 0.25])
    gradients = torch.autograd.grad((expected * weights).sum(), trained, allow_unused=True)
    batches = pack_rollout(theirs, PROMPTS, written, 2, 8192)
    for checkpointing in (False, True):
        scorer = ProfileScorer(theirs, checkpointing=checkpointing)
        logps = torch.cat([scorer(batch) for batch in batches]).flatten()
        torch.testing.assert_close(logps.float(), expected, atol=1e-4, rtol=1e-4)
        found = torch.autograd.grad((logps * weights).sum(), trained, allow_unused=True)
        for ours, own in zip(found, gradients, strict=True):
            if own is not None and own.norm() > 1e-4:
                assert ours is not None
                assert (ours - own).norm() < 1e-3 * own.norm()


@pytest.mark.parametrize("family", SUPPORTED)
def test_every_supported_family_trains_in_float32_beside_bfloat16(
    family: str, tokenizer: PreTrainedTokenizerBase
) -> None:
    """LoRA, whose frozen weights stay in bfloat16: as if they were widened first. And the last layer."""
    model = model_of(family, **SUPPORTED[family]).bfloat16()
    model.set_attn_implementation(PACKED)
    config = PolicyConfig(model="theirs", train="lora", last_layers=1)
    wide, mixed, last = (
        Policy.for_training(copy.deepcopy(model).to(dtype), tokenizer, config.model_copy(update={"train": train}), fp32)
        for fp32 in [torch.float32]
        for dtype, train in ((fp32, "lora"), (torch.bfloat16, "lora"), (torch.bfloat16, "last-layers"))
    )
    options = {"max_tokens": 5, "temperatures": [1.0, 1.0], "seeds": [1, 2, 3], "keep_states": True}
    written = write_profiles(mixed, PROMPTS, **options)
    found, expected = (ProfileScorer(p)(pack_rollout(p, PROMPTS, written, 2, 8192)[0]) for p in (mixed, wide))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    (batch,) = pack_rollout(last, PROMPTS, write_profiles(last, PROMPTS, **options), 2, 8192)
    for policy, scored in ((mixed, found), (last, ProfileScorer(last)(batch))):
        trained = [weight for weight in policy.model.parameters() if weight.requires_grad]
        assert {weight.dtype for weight in trained} == {torch.float32}
        gradients = torch.autograd.grad(scored.sum(), trained, allow_unused=True)
        assert sum(gradient.norm() for gradient in gradients if gradient is not None) > 0


@pytest.mark.parametrize("family", SUPPORTED)
def test_every_supported_family_is_saved_and_opened_again(
    family: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """In bfloat16 with its last layer trained, and as an adapter of what was saved."""
    policy_of(model_of(family, **SUPPORTED[family]).bfloat16(), tokenizer).save(tmp_path / "whole")
    config = PolicyConfig(model=str(tmp_path / "whole"), train="lora", last_layers=1)
    Policy.from_folder(tmp_path / "whole", config, torch.bfloat16)
    adapted = Policy.load(config)
    with torch.no_grad():
        for weight in adapted.model.parameters():
            weight += weight.requires_grad * 0.1 * torch.randn_like(weight)
    adapted.save(tmp_path / "adapter")
    again = Policy.from_folder(tmp_path / "adapter", config)
    ids = torch.tensor([PROMPTS[0]])
    assert torch.equal(adapted.model(input_ids=ids).logits, again.model(input_ids=ids).logits)


@pytest.mark.parametrize("family", REFUSED)
def test_other_families_are_refused_by_name(family: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    settings = {"layer_types": ["full_attention", "sliding_attention"]} if family == "Gemma2" else {}
    model_of(family, **REFUSED[family], **settings).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=rf"\({family.lower()}\) has .*not supported. Use a decoder"):
        Policy.load(PolicyConfig(model=str(tmp_path), last_layers=1))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ({"embedding_multiplier": 1.1}, "changes its embeddings"),
        ({"logits_scaling": 1.05}, "changes its logits"),
        ({"residual_multiplier": 0.9}, "gives other results"),
    ],
    ids=str,
)
def test_a_model_that_scales_what_its_layers_make_is_refused(
    tokenizer: PreTrainedTokenizerBase, scale: dict, message: str, dtype: torch.dtype
) -> None:
    """Granite's layers have the parts of Llama's."""
    with pytest.raises(ModelError, match=rf"'theirs' \(granite\) does more with its tokens .*{message}"):
        policy_of(model_of("Granite", **scale).to(dtype), tokenizer)


class QuietFeedForward(LlamaDecoderLayer):
    """Llama's layer with its second residual scaled."""

    def forward(self, hidden_states: torch.Tensor, **options: object) -> torch.Tensor:
        attended, _ = self.self_attn(hidden_states=self.input_layernorm(hidden_states), **options)
        hidden_states = hidden_states + attended
        return hidden_states + 0.9 * self.mlp(self.post_attention_layernorm(hidden_states))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_one_scaled_residual_of_the_last_of_many_layers_is_seen(
    tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype
) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SHAPE | {"num_hidden_layers": 8}))
    model.model.layers[-1].__class__ = QuietFeedForward
    with pytest.raises(ModelError, match="gives other results"):
        policy_of(model.to(dtype), tokenizer)


class Deaf(LlamaAttention):
    """Llama's attention as transformers' own function computes it, whatever it was loaded with."""

    def forward(self, *args: object, **options: object) -> tuple:
        config, self.config = self.config, copy.copy(self.config)
        self.config._attn_implementation = "sdpa"
        try:
            return super().forward(*args, **options)
        finally:
            self.config = config


@pytest.mark.parametrize("layer", [0, 3, 5], ids=str)
def test_one_layer_whose_attention_cannot_be_reached_is_seen(tokenizer: PreTrainedTokenizerBase, layer: int) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SHAPE | {"num_hidden_layers": 6}))
    model.model.layers[layer].self_attn.__class__ = Deaf
    with pytest.raises(ModelError, match="for prompts packed into a row|cannot be run over packed rows"):
        policy_of(model, tokenizer)


@pytest.mark.parametrize(
    ("layout", "fault", "message"),
    [
        (
            "ProfileCache",
            lambda make: lambda lengths, *rest, **like: make([9] * len(lengths), *rest, **like),
            "token 1",
        ),
        (
            "SharedPrompts",
            lambda make: lambda sessions, *rest: make([(1, [p - 1, *n]) for p, n in sessions], *rest),
            "learn",
        ),
    ],
)
def test_each_layout_is_tried(tokenizer, monkeypatch, layout: str, fault, message: str) -> None:
    """A cache that shows padding to the tokens behind it, and profiles that do not see their prompt."""
    monkeypatch.setattr(acceptance, layout, fault(getattr(acceptance, layout)))
    with pytest.raises(ModelError, match=f"gives other results for .*{message}"):
        policy_of(LlamaForCausalLM(LlamaConfig(**SHAPE)), tokenizer)


def test_rows_of_zeros_in_the_embedding_are_no_reason_to_refuse(tokenizer: PreTrainedTokenizerBase) -> None:
    """A padding row is zero; its logits of itself are zero if the head is tied and nothing else is read."""
    for rows in (slice(0, 8), slice(0, 290), slice(0, 300)):
        model = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True))
        with torch.no_grad():
            model.get_input_embeddings().weight[rows] = 0
        assert policy_of(model, tokenizer).cut == 1


def test_weights_that_are_not_numbers_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[3, 4] = float("nan")
    with pytest.raises(ModelError, match="not numbers"):
        policy_of(model, tokenizer)


def test_the_check_leaves_the_model_as_it_was(tokenizer: PreTrainedTokenizerBase) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).bfloat16()
    before = {name: (weight.data_ptr(), weight.clone()) for name, weight in model.state_dict().items()}
    policy_of(model, tokenizer)
    for name, weight in model.state_dict().items():
        assert before[name][0] == weight.data_ptr()
        assert torch.equal(before[name][1], weight)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_positions_that_depend_on_the_batch_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    rotary = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    model = LlamaForCausalLM(LlamaConfig(**SHAPE, rope_parameters=rotary))
    with pytest.raises(ModelError, match="dynamic positions"):
        policy_of(model, tokenizer)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SHAPE | {"vocab_size": 200}))
    with pytest.raises(ModelError, match=r"'theirs' has tokens that the model has no embedding for: it has 200"):
        policy_of(model, tokenizer)


def test_a_special_token_that_is_never_met_needs_no_embedding(tokenizer: PreTrainedTokenizerBase) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SHAPE | {"vocab_size": len(tokenizer)}))
    theirs = copy.deepcopy(tokenizer)
    theirs.add_special_tokens({"additional_special_tokens": ["<image>"]})
    assert policy_of(model, theirs).cut == 1
    theirs.chat_template = "<image>" + theirs.chat_template
    with pytest.raises(ModelError, match="'<image>'"):
        policy_of(model, theirs)
