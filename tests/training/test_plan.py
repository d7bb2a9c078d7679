"""The plan against what is measured: a real engine's bytes, a real model's weights, activations and keys and values."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from tests.processes import start_ranks
from tests.training.engine_bytes import measure_engine
from transformers import DistilBertConfig, MambaConfig, MixtralConfig

from langptune_rs.config import load_config
from langptune_rs.config.policy import PolicyConfig
from langptune_rs.errors import ModelError
from langptune_rs.models.policy import Policy
from langptune_rs.models.shapes import embedder_shape, policy_shape
from langptune_rs.training.planning.memory import (
    PARTS,
    USABLE,
    ModelWeights,
    engine_memory,
    kv_bytes_per_token,
    layer_activation,
    options,
    policy_weights,
    prompt_tokens,
)
from langptune_rs.training.planning.plan import make_plan, remedy

STEP = Path(__file__).with_name("step_bytes.py")
MATRIX = 512 * 512
HISTORY = "contrastive.history_steps=100"
LAST_STAYS = ((1, "fp32"), (2, "fp32"), (2, "bf16"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    ("stage", "precision", "trained"),
    [(stage, "fp32", "fp32") for stage in range(4)]
    + [(stage, "bf16", "bf16") for stage in range(1, 4)]
    + [(stage, "bf16", "fp32") for stage in range(4)],
)
def test_an_engine_holds_what_the_plan_says(tmp_path, stage, precision, trained, processes):
    ranks = start_ranks(partial(measure_engine, tmp_path, stage, precision, trained), tmp_path / "log", processes)
    assert [rank.wait(120) for rank in ranks] == [0] * processes, (tmp_path / "log").read_text()
    weights = ModelWeights(4 * MATRIX, 2 * MATRIX, 0)
    plan = engine_memory(
        weights,
        stage=stage,
        offload="none",
        precision=precision,
        trained_precision=trained,
        num_processes=processes,
    )
    # The gradient that was summed last stays until the next; of a model of four matrices it is worth counting.
    last = {"fp32": 4, "bf16": 2}[trained] * MATRIX if (stage, trained) in LAST_STAYS else 0
    for rank in range(processes):
        assert json.loads((tmp_path / str(rank)).read_text()) == pytest.approx(sum(plan.values()) + last, rel=0.02)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("google/gemma-2b-it", 2_506_172_416),
        ("meta-llama/Meta-Llama-3-8B-Instruct", 8_030_261_248),
        ("smollm2-135m-instruct", 134_515_008),
    ],
)
def test_policies_have_their_published_number_of_weights(name, weights):
    assert policy_shape(name).weights == weights


def test_the_embedder_has_its_published_number_of_weights():
    assert embedder_shape("mixedbread-ai/mxbai-embed-large-v1").weights == 335_141_888


def test_a_model_that_nobody_knows_names_the_file_to_fetch():
    with pytest.raises(ModelError, match=r"hf download nobody/nothing config\.json"):
        policy_shape("nobody/nothing")


def test_a_model_without_heads_is_an_error_and_one_with_experts_is_counted(tmp_path):
    sizes = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2}
    MambaConfig(**sizes).save_pretrained(tmp_path / "mamba")
    with pytest.raises(ModelError, match="a model of type mamba is unknown"):
        policy_shape(str(tmp_path / "mamba"))
    experts = {"num_local_experts": 4, "num_experts_per_tok": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    MixtralConfig(**sizes, **experts, intermediate_size=48).save_pretrained(tmp_path / "mixtral")
    shape = policy_shape(str(tmp_path / "mixtral"))
    assert (shape.feed_forward, shape.gated) == (2 * 48, True)
    DistilBertConfig(vocab_size=300, dim=32, hidden_dim=48, n_layers=2, n_heads=4).save_pretrained(tmp_path / "distil")
    assert embedder_shape(str(tmp_path / "distil")).feed_forward == 48


@pytest.fixture(scope="module")
def smollm() -> Policy:
    return Policy.load(PolicyConfig(last_layers=4))


def test_what_trains_is_counted_as_the_model_counts_it(smollm):
    config = load_config("quickstart", ["policy.last_layers=4"])
    parts = policy_weights(policy_shape("smollm2-135m-instruct"), config)
    weights = list(smollm.model.parameters())
    assert parts.trained == sum(weight.numel() for weight in weights if weight.requires_grad)
    assert parts.trained + parts.frozen + parts.outside == sum(weight.numel() for weight in weights)


def test_lora_is_counted_as_peft_counts_it():
    config = load_config("quickstart", ["policy.train=lora", "policy.lora_rank=8"])
    model = Policy.load(config.policy).model
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert policy_weights(policy_shape(config.policy.model), config).trained == trained


def test_keys_and_values_take_what_the_plan_says(smollm):
    ids = torch.ones(2, 40, dtype=torch.int64)
    with torch.no_grad():
        cache = smollm.model(ids, use_cache=True).past_key_values
    held = sum(states.nbytes for layer in cache.layers for states in (layer.keys, layer.values))
    assert held == ids.numel() * kv_bytes_per_token(policy_shape("smollm2-135m-instruct"), "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_trained_layer_keeps_what_the_plan_says(precision):
    """For the backward pass, counted as torch's autograd saves it; the attention mask and the weights are not of it."""
    policy = Policy.load(PolicyConfig(last_layers=4), {"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
    weights = {weight.untyped_storage().data_ptr() for weight in policy.model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = tensor
        return tensor

    tokens = 256
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        out = policy.model.get_decoder()(torch.arange(tokens)[None], use_cache=False).last_hidden_state
    assert out.requires_grad
    measured = sum(tensor.untyped_storage().nbytes() for tensor in saved.values())
    plan = 4 * tokens * layer_activation(policy_shape("smollm2-135m-instruct"), precision)
    assert measured == pytest.approx(plan, rel=0.15)


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak of a process can be measured here")
@pytest.mark.parametrize(
    "settings",
    [
        ["engine.precision=bf16"],
        ["engine.precision=fp32"],
        ["engine.precision=bf16", "rlso.gradient_checkpointing=true"],
    ],
)
def test_updates_take_no_more_memory_than_the_plan_says_and_not_much_less(settings):
    """The whole process, as its machine sees it, where large blocks that are freed are given back at once."""
    small = ("rlso.batch_size=6", "policy.last_layers=4", "data.max_history_tokens=384", "profile.max_tokens=96")
    overrides = ["method=LangPTune-RLSO", "rlso.micro_batch_tokens=2112", "rlso.num_profiles=2", *small, *settings]
    config = load_config("quickstart", overrides)
    shapes = policy_shape(config.policy.model), embedder_shape(config.embedder.model)
    (plan,) = options(config, *shapes, 1)[config.engine.zero_stage].phases
    assert plan.kv_cache == 0, "the most memory is to be that of updates"
    allocator = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    taken = subprocess.run(
        [sys.executable, str(STEP), str(prompt_tokens(config)), *overrides],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | allocator,
    )
    assert 0.8 <= int(taken.stdout.split()[-1]) / (plan.total - plan.weights) <= 1.05


@pytest.mark.parametrize("recipe", ["gemma-2b", "llama-3-8b", "quickstart"])
def test_more_of_zero_takes_no_more_memory_but_for_what_it_gathers(recipe):
    config = load_config(recipe)
    shapes = policy_shape(config.policy.model), embedder_shape(config.embedder.model)
    for first, second in ((1, 2), (0, 4), (3, 5), (5, 6)):
        tried = options(config, *shapes, 8)
        for less, more in zip(tried[second].phases, tried[first].phases, strict=True):
            assert less.total <= more.total
    one, eight = (options(config, *shapes, n)[3] for n in (1, 8))
    assert eight.phases[-1].optimizer * 8 == pytest.approx(one.phases[-1].optimizer, rel=1e-6)


def test_steps_on_histories_are_a_phase_that_writes_nothing_and_trains_as_a_contrastive_one():
    plan = partial(make_plan, num_gpus=2, gpu_memory=48 * 2**30)
    shapes = policy_shape("google/gemma-2b-it"), embedder_shape("mixedbread-ai/mxbai-embed-large-v1")
    without, both = (plan(load_config("gemma-2b", options), *shapes) for options in ([], [HISTORY]))
    history, contrastive, rlso = both.steps
    assert [contrastive, rlso] == without.steps
    assert (history.phase, history.tokens_written) == ("history", 0)
    assert history.tokens_trained == contrastive.tokens_trained
    assert 0 < history.seconds < contrastive.seconds
    alone = load_config("gemma-2b", [HISTORY, "method=LangPTune-CL", "contrastive.steps=0"])
    assert [step.phase for step in plan(alone, *shapes).steps] == ["history"]
    without_embedder = plan(load_config("gemma-2b", [HISTORY, "method=LangPTune-RLSO"]), *shapes)
    assert [step.phase for step in without_embedder.steps] == ["rlso"]
    assert all([phase.phase for phase in option.phases] == ["rlso"] for option in without_embedder.options)
    for before, after in zip(without.options, both.options, strict=True):
        assert after.phases[1:] == before.phases
        first = after.phases[0]
        assert (first.phase, first.gradients, first.optimizer) == ("history", *_engines(before))
        assert first.total <= before.phases[0].total
    assert any(line.startswith("A history step writes 0 tokens, ") for line in both.lines())


def _engines(option):
    return option.phases[0].gradients, option.phases[0].optimizer


def test_what_does_not_fit_is_answered_with_a_key_that_makes_it_smaller():
    config = load_config("gemma-2b")
    shapes = policy_shape(config.policy.model), embedder_shape(config.embedder.model)
    said = make_plan(config, *shapes, 8, 8 * 2**30).advice
    key, value = said.partition("Set ")[2].removesuffix(".").removesuffix(", half of now").split(" = ")
    before = min(max(p.total for p in o.phases) for o in options(config, *shapes, 8))
    smaller = load_config("gemma-2b", [f"{key}={value}"])
    assert min(max(p.total for p in o.phases) for o in options(smaller, *shapes, 8)) < before
    roomy = make_plan(config, *shapes, 8, 2 * before / USABLE).advice
    assert roomy.startswith("Set engine.zero_stage")


@pytest.mark.parametrize("train", ["lora", "last-layers"])
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("phase", ["history", "contrastive", "rlso"])
def test_what_is_advised_can_be_set_until_only_a_smaller_model_helps(phase, part, train):
    overrides = [f"policy.train={train}"]
    for _ in range(60):
        said = remedy(config := load_config("gemma-2b", overrides), phase, part)
        if said.startswith("Set a smaller policy.model"):
            break
        key, value = re.match(r"Set ([\w.]+) = (\w+)", said).groups()
        overrides.append(f"{key}={value}")
        assert load_config("gemma-2b", overrides) != config
    else:
        pytest.fail(f"{said} is said without end")
