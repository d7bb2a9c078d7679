"""What trains computes its log-probabilities exactly, whatever the rest of the policy is in."""

import io
import math
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.experiments.tiny import make_models, tiny_config
from torch import nn

from langptune_rs.config import load_config
from langptune_rs.config.engine import EngineConfig
from langptune_rs.config.policy import PolicyConfig
from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.distributed.start import start_distributed
from langptune_rs.errors import ConfigError
from langptune_rs.models.mixed import MixedLinear, widen
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.sampling import Profiles, write_profiles
from langptune_rs.training.engines import make_engine
from langptune_rs.training.log_ratios import LogRatioCheck, pair_spread, rounded_differently
from langptune_rs.training.models import Models
from langptune_rs.training.policy_step import policy_step
from langptune_rs.training.rollout_batches import pack_rollout
from langptune_rs.training.scorer import ProfileScorer, score

TEXTS = ("A user likes slow films about families.", "Name the next book for a reader of crime novels.", "Jazz?")
NUM_PROFILES = 4
REWARDS_BG = torch.tensor([[1.5, -0.5, -0.5, -0.5], [-1.0, 1.0, 0.5, -0.5], [0.0, 0.0, 1.0, -1.0]], dtype=torch.float64)
PRECISIONS = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A policy of a few thousand weights."""
    return make_models(tmp_path_factory.mktemp("models"))[0]


@pytest.fixture(params=["last-layers", "lora"])
def train(request) -> str:
    return request.param


def tiny(folder: Path, trained_dtype: torch.dtype, train: str) -> Policy:
    """The policy in bfloat16 with its trained part in another precision. LoRA starts at other weights than 0."""
    torch.manual_seed(0)
    config = PolicyConfig(model=str(folder), train=train, last_layers=1, lora_rank=4)
    policy = Policy.load(config, torch.bfloat16, trained_dtype)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data = (torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / 100).to(weight.dtype)
    return policy


def written(policy: Policy) -> tuple[list[list[int]], Profiles]:
    prompts = [policy.encode_prompt(text) for text in TEXTS]
    temperatures, seeds = [2.0] * NUM_PROFILES, range(len(TEXTS))
    options = {"max_tokens": 12, "temperatures": temperatures, "seeds": seeds, "keep_states": True}
    return prompts, write_profiles(policy, prompts, **options)


def test_it_matters_not_for_writing_in_what_the_trained_part_is_kept(folder, train):
    first, *others = (written(tiny(folder, dtype, train))[1].tokens for dtype in PRECISIONS.values())
    assert all(tokens == first for tokens in others)


def test_log_probabilities_in_float32_are_those_of_float64(folder, train):
    """Also with LoRA, where every layer trains beside its frozen matrices."""
    rollout = written(tiny(folder, torch.bfloat16, train))
    logps = {}
    for name, dtype in PRECISIONS.items():
        policy = tiny(folder, dtype, train)
        logps[name] = score(ProfileScorer(policy, 2.0), pack_rollout(policy, *rollout, NUM_PROFILES, 8192))
    assert (logps["fp32"] - logps["fp64"]).abs().max() < 1e-4  # transformers itself norms in float32
    assert (logps["bf16"] - logps["fp64"]).abs().max() > 1e-3


def test_weights_come_back_as_they_were(folder, train):
    policy = tiny(folder, torch.float32, train)
    before = {name: weight.detach().clone() for name, weight in policy.model.named_parameters()}
    with policy.in_one_precision():
        assert {weight.dtype for weight in policy.model.parameters()} == {torch.bfloat16}
    for name, weight in policy.model.named_parameters():
        assert weight.dtype == before[name].dtype
        assert torch.equal(weight, before[name])
    trained = {weight.dtype for weight in policy.model.parameters() if weight.requires_grad}
    frozen = {weight.dtype for weight in policy.model.parameters() if not weight.requires_grad}
    assert trained == {torch.float32}
    assert torch.bfloat16 in frozen


def test_a_saved_policy_is_in_the_precision_it_writes_in(folder, train, tmp_path):
    policy = tiny(folder, torch.float32, train)
    _, profiles = written(policy)
    policy.save(tmp_path / "saved")
    opened = Policy.from_folder(tmp_path / "saved", policy.config, torch.bfloat16)
    assert written(opened)[1].tokens == profiles.tokens


def test_frozen_bfloat16_layers_multiply_float32_rows_exactly():
    """The product and its gradient, against a float64 one; no wide copy of the matrix is kept for the backward pass."""
    torch.manual_seed(0)
    layer = nn.Linear(48, 80, dtype=torch.bfloat16).requires_grad_(False)
    rows = torch.randn(7, 48, requires_grad=True)
    widen(nn.Sequential(layer), torch.float32)
    assert type(layer) is MixedLinear
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.dtype) or x, lambda x: x):
        out = layer(rows)
    assert set(saved) == {torch.bfloat16}
    weight, bias = layer.weight.double(), layer.bias.double()
    torch.testing.assert_close(out.double(), rows.double() @ weight.T + bias, atol=1e-5, rtol=1e-5)
    slope = torch.randn_like(out)
    (gradient,) = torch.autograd.grad(out, rows, slope)
    torch.testing.assert_close(gradient.double(), slope.double() @ weight, atol=1e-5, rtol=1e-5)
    short = rows.detach().bfloat16()
    assert layer(short).dtype == torch.bfloat16
    assert torch.equal(layer(short), nn.functional.linear(short, layer.weight, layer.bias))


@pytest.mark.parametrize("frozen", [True, False])
def test_gradients_may_round_where_products_may_not(frozen):
    """The product has the same bits with gradients in bfloat16, and these are right to 8 bits of their length."""
    torch.manual_seed(0)
    dtype = torch.bfloat16 if frozen else torch.float32
    layer = nn.Linear(48, 80, bias=False, dtype=dtype).requires_grad_(not frozen)
    rows, slope = torch.randn(3, 7, 48, requires_grad=True), torch.randn(3, 7, 80)
    of = [rows] if frozen else [rows, layer.weight]
    widen(nn.Sequential(layer), torch.float32)
    exact = layer(rows)
    exact_gradients = torch.autograd.grad(exact, of, slope)
    widen(nn.Sequential(layer), torch.float32, torch.bfloat16)
    rounded = layer(rows)
    assert torch.equal(rounded, exact)
    for gradient, expected in zip(torch.autograd.grad(rounded, of, slope), exact_gradients, strict=True):
        assert gradient.dtype == expected.dtype
        assert 0 < (gradient - expected).norm() < 2**-7 * expected.norm()


@pytest.mark.parametrize("is_faster", [True, False])
def test_gradients_are_in_bfloat16_where_that_is_faster(folder, train, monkeypatch, is_faster):
    """Log-probabilities do not change, and what trains has gradients in its own precision."""
    monkeypatch.setattr("langptune_rs.models.precision.has_bf16_products", lambda: is_faster)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    policy = tiny(folder, torch.float32, train)
    assert policy.gradient_dtype == (torch.bfloat16 if is_faster else torch.float32)
    assert tiny(folder, torch.bfloat16, train).gradient_dtype == torch.bfloat16
    exact = tiny(folder, torch.float32, train)
    exact.gradient_dtype = torch.float32
    for module in exact.model.modules():
        if isinstance(module, MixedLinear):
            module.gradient_dtype = None
    rollout = written(exact)
    found = []
    for each in (policy, exact):
        (batch,) = pack_rollout(each, *rollout, NUM_PROFILES, 8192)
        logps = ProfileScorer(each, 2.0)(batch)
        logps.sum().backward()
        found.append(
            (logps.detach(), torch.cat([p.grad.flatten() for p in each.model.parameters() if p.requires_grad]))
        )
    (logps, gradient), (expected_logps, expected) = found
    assert torch.equal(logps, expected_logps)
    assert gradient.dtype == torch.float32
    assert (gradient - expected).norm() < (0.02 if is_faster else 1e-6) * expected.norm()
    assert torch.equal(gradient, expected) != is_faster


def test_pair_spread_is_the_root_mean_square_over_pairs():
    values = np.random.default_rng(0).normal(size=(5, 4))
    differences = [(row[i] - row[j]) ** 2 for row in values for i in range(4) for j in range(i)]
    assert pair_spread(torch.from_numpy(values)) == pytest.approx(math.sqrt(np.mean(differences)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_few_weights_move_by_their_last_place_and_come_back(dtype):
    layer = nn.Linear(200, 200, dtype=dtype)
    layer.bias.requires_grad_(False)
    before = layer.weight.detach().clone()
    with rounded_differently(layer, 0):
        moved = layer.weight != before
        assert 10 <= moved.sum() <= 20  # 1 in 2,000, of which some are drawn twice
        distance = (layer.weight - before)[moved].abs().float() / before[moved].abs().float()
        assert (distance <= torch.finfo(dtype).eps).all()
    assert torch.equal(layer.weight, before)


@pytest.fixture(scope="module")
def updates() -> dict:
    """Eight updates of a real policy over one rollout, by precision: losses, and what the run's own check finds."""
    start_distributed()
    config = PolicyConfig(last_layers=2)
    rollout = written(Policy.load(config, torch.bfloat16))
    found = {}
    for name in ("bf16", "fp32"):
        policy = Policy.load(config, torch.bfloat16, PRECISIONS[name])
        batches = pack_rollout(policy, *rollout, NUM_PROFILES, 8192)
        scorer = ProfileScorer(policy)
        engine = make_engine(scorer, 1e-6, 0.0, EngineConfig(), name)
        check = LogRatioCheck(scorer, batches[0], 0)
        old_BG, losses = None, []
        for update in range(8):
            rlso = RlsoConfig(batch_size=len(TEXTS), num_profiles=NUM_PROFILES)
            old_BG, values = policy_step(engine, batches, REWARDS_BG, old_BG, rlso, 1e-6)
            losses.append(values["rlso/loss"])
            if update == 0:
                said = io.StringIO()
                with redirect_stderr(said):
                    metrics = check.metrics()
        found[name] = losses, metrics["rlso/log_ratio_noise"], metrics["rlso/log_ratio_step"], said.getvalue()
    return found


def test_eight_updates_over_one_rollout_lower_the_loss_each_time(updates):
    losses = updates["fp32"][0]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 0.01
    rounded = updates["bf16"][0]
    assert rounded != sorted(rounded, reverse=True)


def test_float32_knows_a_step_from_rounding_and_bfloat16_does_not(updates):
    """At the usual learning rate, as the run itself finds out."""
    _, noise, step, said = updates["fp32"]
    assert noise < 0.01 * step
    assert not said
    _, noise, step, said = updates["bf16"]
    assert noise > 0.5 * step
    assert ("Rounding moves a pair's difference" in said) == (noise > step)


def test_a_run_takes_no_shorter_products_for_float32(tmp_path):
    """Some containers and libraries switch TF32 on, in which a step of 1e-6 is not seen."""
    start_distributed()
    policy, embedder = make_models(tmp_path)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        Models(tiny_config(policy, embedder, tmp_path, "LangPTune-RLSO", {}))
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)


def test_what_trains_is_in_no_shorter_precision_than_the_rest():
    with pytest.raises(ConfigError, match=r"rlso\.precision = \"bf16\" is less than engine\.precision"):
        load_config("quickstart", ["engine.precision=fp32", "rlso.precision=bf16"])
