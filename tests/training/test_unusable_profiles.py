"""A profile without a finite log-probability is left out, and nothing else changes."""

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.experiments.tiny import make_models
from torch import Tensor, nn

from langptune_rs.config.policy import PolicyConfig
from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.models.policy import Policy
from langptune_rs.rollout.reward import standardize
from langptune_rs.rollout.sampling import write_profiles
from langptune_rs.training.log_ratios import pair_spread
from langptune_rs.training.policy_step import policy_step
from langptune_rs.training.rollout_batches import RolloutBatch, pack_rollout
from langptune_rs.training.scorer import ProfileScorer, score
from langptune_rs.training.unusable import UnusableProfiles

TEXTS = ("A user likes slow films about families.", "Name the next book for a reader of crime novels.", "Jazz?")
NUM_PROFILES = 3
REWARDS_BG = standardize(torch.tensor([[1.5, -0.5, -1.0], [-1.0, 1.0, 0.5], [0.0, 1.0, -1.0]], dtype=torch.float64))
LOST = (1, 1)
"""Session and profile."""
MARK = 0.37
RLSO = RlsoConfig(batch_size=len(TEXTS), num_profiles=NUM_PROFILES, eta=0.7)


class Gradients:
    """An engine that takes no step, so that the gradients can be looked at."""

    def __init__(self, scorer: ProfileScorer):
        self.module = scorer
        self.optimizer = torch.optim.SGD(trained(scorer), lr=0.0)
        self.num_steps = 0

    def __call__(self, batch: RolloutBatch) -> Tensor:
        return self.module(batch)

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def step(self) -> None:
        self.num_steps += 1

    def zero_optimization_stage(self) -> int:
        return 0

    def get_global_grad_norm(self) -> None:
        return None


def trained(scorer: ProfileScorer) -> list[Tensor]:
    return [p for p in scorer.parameters() if p.requires_grad]


@pytest.fixture(scope="module", params=["last-layers", "lora"])
def rollout(request, tmp_path_factory):
    """A policy of a few thousand weights, its prompts and its profiles."""
    torch.manual_seed(0)
    folder = make_models(tmp_path_factory.mktemp("models"))[0]
    policy = Policy.load(PolicyConfig(model=str(folder), train=request.param, last_layers=1, lora_rank=4))
    for name, weight in policy.model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.01)
    prompts = [policy.encode_prompt(text) for text in TEXTS]
    options = {"max_tokens": 12, "temperatures": [2.0] * NUM_PROFILES, "seeds": range(len(TEXTS)), "keep_states": True}
    return with_state(policy, prompts, write_profiles(policy, prompts, **options), MARK, "profile")


def with_state(policy, prompts, profiles, value: float, part: str):
    """The rollout with a state that is `value` in all its dimensions, within the profile `LOST` or its prompt."""
    states = replace(profiles.states, prompts=list(profiles.states.prompts), profiles=list(profiles.states.profiles))
    group, place = (
        (states.prompts, LOST[0]) if part == "prompt" else (states.profiles, LOST[0] * NUM_PROFILES + LOST[1])
    )
    group[place] = group[place].clone()
    group[place][1] = value
    return policy, prompts, replace(profiles, states=states)


@contextmanager
def breaking_layer(policy: Policy) -> Iterator[None]:
    """Inside the block the first layer that trains makes NaN of the marked state."""

    def broken(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
        (hidden,) = inputs
        return (hidden.masked_fill((hidden == MARK).all(-1, keepdim=True), math.nan),)

    handle = policy.decoder.layers[policy.cut].input_layernorm.register_forward_pre_hook(broken)
    yield
    handle.remove()


def packed(rollout, capacity: int = 8192) -> list[RolloutBatch]:
    policy, prompts, profiles = rollout
    return pack_rollout(policy, prompts, profiles, NUM_PROFILES, capacity)


def expected(rollout, lost: list[tuple[int, int]]) -> tuple[float, list[Tensor]]:
    """Loss and gradients by the definition: the mean over pairs of profiles that are not lost, each session alone."""
    scorer = ProfileScorer(rollout[0])
    losses = []
    for batch in packed(rollout, 1):
        (logps_G,), (session,) = scorer(batch), batch.sessions
        residual_G = REWARDS_BG[session] - (logps_G - logps_G.detach()) / RLSO.eta
        kept = [g for g in range(NUM_PROFILES) if (session, g) not in lost]
        losses += [(residual_G[g] - residual_G[h]) ** 2 for g, h in itertools.combinations(kept, 2)]
    loss = torch.stack(losses).mean()
    return loss.item(), list(torch.autograd.grad(loss, trained(scorer)))


def check_steps(rollout, capacity: int, lost: list[tuple[int, int]], loss: float, gradients: list[Tensor]) -> None:
    """Two steps, of which the first finds what is lost and the second knows."""
    is_lost_BG = torch.zeros(len(TEXTS), NUM_PROFILES, dtype=torch.bool)
    is_lost_BG[tuple(np.transpose(lost))] = True
    old_BG = None
    for _ in range(2):
        engine = Gradients(ProfileScorer(rollout[0]))
        engine.optimizer.zero_grad()
        old_BG, values = policy_step(engine, packed(rollout, capacity), REWARDS_BG, old_BG, RLSO, 1e-6)
        assert torch.equal(old_BG.isnan(), is_lost_BG)
        assert values["rlso/unusable_profiles"] == len(lost)
        assert values["rlso/loss"] == pytest.approx(loss, rel=1e-5)
        assert engine.num_steps == 1
        norm = math.sqrt(sum(gradient.square().sum() for gradient in gradients))
        assert values["rlso/grad_norm"] == pytest.approx(norm, rel=1e-4)
        for parameter, gradient in zip(trained(engine.module), gradients, strict=True):
            assert (parameter.grad - gradient).norm() <= 1e-4 * norm


@pytest.mark.parametrize("capacity", [1, 8192])
@pytest.mark.parametrize("cause", ["state", "layer"])
def test_the_step_is_that_without_the_profile(rollout, capacity, cause):
    """In a micro-batch of all sessions, and where the other sessions' gradients were added before it was found."""
    loss, gradients = expected(rollout, [LOST])
    if cause == "state":
        check_steps(with_state(*rollout, math.nan, "profile"), capacity, [LOST], loss, gradients)
    else:
        with breaking_layer(rollout[0]):
            check_steps(rollout, capacity, [LOST], loss, gradients)


def test_a_prompt_that_gives_no_number_loses_its_session(rollout):
    lost = [(LOST[0], g) for g in range(NUM_PROFILES)]
    bad = with_state(*rollout, math.inf, "prompt")
    check_steps(bad, 8192, lost, *expected(rollout, lost))
    noise = pair_spread(score(ProfileScorer(bad[0]), packed(bad)))
    others = [session for session in range(len(TEXTS)) if session != LOST[0]]
    assert noise == pytest.approx(pair_spread(score(ProfileScorer(rollout[0]), packed(rollout))[others]), rel=1e-5)


def test_leaving_it_out_of_the_loss_would_not_do(rollout):
    """Without more care it takes the profiles beside it and every gradient with it."""
    scorer = ProfileScorer(rollout[0])
    with breaking_layer(rollout[0]):
        (logps_BG,) = (scorer(batch) for batch in packed(rollout))
        assert logps_BG.isnan().sum() > 1
        usable_BG = ~logps_BG.isnan()
        gradients = torch.autograd.grad(logps_BG.where(usable_BG, 0).sum(), trained(scorer))
    assert all(gradient.isnan().any() for gradient in gradients)


def test_no_step_is_taken_without_a_pair(rollout):
    with breaking_layer(rollout[0]), torch.no_grad():
        (first, *_) = trained(ProfileScorer(rollout[0]))
        before = first.clone()
        first.fill_(math.nan)
    engine = Gradients(ProfileScorer(rollout[0]))
    old_BG = None
    for _ in range(2):
        old_BG, values = policy_step(engine, packed(rollout), REWARDS_BG, old_BG, RLSO, 1e-6)
        assert old_BG.isnan().all()
        assert math.isnan(values["rlso/loss"])
        assert math.isnan(values["rlso/grad_norm"])
    assert engine.num_steps == 0
    first.data.copy_(before)


def test_rewards_that_are_missing_stay_so_and_do_not_count():
    rewards_BG = torch.rand(4, 3, dtype=torch.float64)
    rewards_BG[1, 2] = math.nan
    standard_BG = standardize(rewards_BG)
    known = ~rewards_BG.isnan()
    assert torch.equal(standard_BG.isnan(), ~known)
    assert torch.equal(standard_BG[known], standardize(rewards_BG[known]))
    assert standardize(torch.full((2, 2), math.nan)).isnan().all()


def test_each_is_named_once(capsys):
    logps_BG = torch.zeros(4, 2)
    unusable = UnusableProfiles(np.array([70, 71, 72, 73]))
    unusable.name(logps_BG, 0)
    assert not capsys.readouterr().err
    logps_BG[1, 0] = math.nan
    for _ in range(2):
        unusable.name(logps_BG, 1)
    assert capsys.readouterr().err == (
        "Left out of the loss, as their log-probability is not finite: profile 1 of session 71.\n"
    )
    logps_BG[:] = math.nan
    unusable.name(logps_BG, 8)
    said = capsys.readouterr().err
    assert "profile 1 of session 70, profile 2 of session 70, profile 2 of session 71" in said
    assert "and 2 more." in said
    assert "profile 1 of session 71" not in said
