"""What trains computes its log-probabilities exactly, whatever the rest of the policy is in."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from langptune_rs.config import load_config
from langptune_rs.config.engine import EngineConfig
from langptune_rs.config.policy import PolicyConfig
from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.distributed.start import start_distributed
from langptune_rs.errors import ConfigError
from langptune_rs.models.mixed import MixedLinear, accept_mixed
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.sampling import write_profiles
from langptune_rs.training.engines import make_engine
from langptune_rs.training.log_ratios import LogRatioCheck, pair_spread, rounded_differently
from langptune_rs.training.policy_step import policy_step
from langptune_rs.training.rollout_batches import pack_rollout
from langptune_rs.training.scorer import ProfileScorer, score

TEXTS = ("A user likes slow films about families.", "Name the next book for a reader of crime novels.", "Jazz?")


def policy_in(trained_dtype: torch.dtype, train: str = "last-layers") -> Policy:
    """The small policy in bfloat16 with its trained part in another precision. LoRA starts at other weights than 0."""
    torch.manual_seed(0)
    policy = Policy.load(PolicyConfig(train=train, last_layers=2, lora_rank=4), torch.bfloat16, trained_dtype)
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data = (torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) / 100).to(weight.dtype)
    return policy


def batches_of(policy: Policy, num_profiles: int = 2):
    prompts = [policy.encode_prompt(text) for text in TEXTS]
    profiles = write_profiles(
        policy, prompts, max_tokens=12, temperatures=[1.0] * num_profiles, seeds=[1, 2, 3], keep_states=True
    )
    return profiles, pack_rollout(policy, prompts, profiles, num_profiles, 8192)


@pytest.fixture(scope="module", params=["last-layers", "lora"])
def train(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def logps(train) -> dict:
    """Log-probabilities of the same profiles from the same states, by the precision of what trains."""
    found = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        policy = policy_in(dtype, train)
        profiles, batches = batches_of(policy)
        found[dtype] = profiles.tokens, score(ProfileScorer(policy), batches)
    return found


def test_profiles_are_written_alike_whatever_trains_is_kept_in(logps):
    first, *others = (tokens for tokens, _ in logps.values())
    assert all(tokens == first for tokens in others)


def test_log_probabilities_in_float32_are_those_of_float64(logps):
    exact_BG = logps[torch.float64][1]
    assert (logps[torch.float32][1] - exact_BG).abs().max() < 1e-3  # transformers itself norms in float32
    assert (logps[torch.bfloat16][1] - exact_BG).abs().max() > 2e-2


def test_weights_come_back_as_they_were(train):
    policy = policy_in(torch.float32, train)
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


def test_a_saved_policy_is_in_the_precision_it_writes_in(train, tmp_path):
    policy = policy_in(torch.float32, train)
    profiles, _ = batches_of(policy)
    policy.save(tmp_path / "saved")
    opened = Policy.from_folder(tmp_path / "saved", policy.config, torch.bfloat16)
    assert batches_of(opened)[0].tokens == profiles.tokens


def test_eight_updates_over_one_rollout_lower_the_loss_each_time():
    """In bfloat16 they do not: its rounding is larger than what such steps change."""
    start_distributed()
    policy = policy_in(torch.float32)
    _, batches = batches_of(policy, num_profiles=4)
    engine = make_engine(ProfileScorer(policy), 1e-6, 0.0, EngineConfig(), "fp32")
    rewards_BG = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    old_BG, losses = None, []
    for _ in range(8):
        old_BG, values = policy_step(
            engine, batches, rewards_BG, old_BG, RlsoConfig(batch_size=3, num_profiles=4), 1e-6
        )
        losses.append(values["rlso/loss"])
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] - 1e-3


def test_frozen_bfloat16_layers_multiply_float32_rows_exactly():
    """The product and its gradient, against a float64 one; no wide copy of the matrix is kept for the backward pass."""
    torch.manual_seed(0)
    layer = nn.Linear(48, 80, dtype=torch.bfloat16).requires_grad_(False)
    rows = torch.randn(7, 48, requires_grad=True)
    accept_mixed(nn.Sequential(layer))
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


def test_bfloat16_is_noisier_than_its_steps_and_float32_is_not(capsys):
    """At the usual learning rate, as the run itself finds out."""
    start_distributed()
    found = {}
    for name, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        policy = policy_in(dtype)
        _, batches = batches_of(policy)
        scorer = ProfileScorer(policy)
        engine = make_engine(scorer, 1e-6, 0.0, EngineConfig(), name)
        check = LogRatioCheck(scorer, batches[0], 0)
        rewards_BG = torch.tensor([[1.0, -1.0]] * 3, dtype=torch.float64)
        policy_step(engine, batches, rewards_BG, None, RlsoConfig(batch_size=3), 1e-6)
        found[name] = check.metrics()
    said = capsys.readouterr().err
    assert found["fp32"]["rlso/log_ratio_noise"] < 0.1 * found["fp32"]["rlso/log_ratio_step"]
    assert found["bf16"]["rlso/log_ratio_noise"] > found["bf16"]["rlso/log_ratio_step"]
    assert said.count("Rounding moves a pair's difference") == 1
    assert 'rlso.precision = "fp32"' in said


def test_what_trains_is_in_no_shorter_precision_than_the_rest():
    with pytest.raises(ConfigError, match=r"rlso\.precision = \"bf16\" is less than engine\.precision"):
        load_config("quickstart", ["engine.precision=fp32", "rlso.precision=bf16"])
