"""Losses of the policy step against float64 and closed forms."""

import itertools
import math
from dataclasses import fields
from typing import get_args

import numpy as np
import pytest
import torch

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.rollout.reward import STANDARDIZERS, standardize_by_session
from langptune_rs.training.objectives import ScoredProfiles, find_objective, losses_of_usable

equation_6 = find_objective("rlso")
NAMES = get_args(RlsoConfig.model_fields["objective"].annotation)
FIELDS = [field.name for field in fields(ScoredProfiles)]
CLIPPED = RlsoConfig(objective="grpo", clip_epsilon=0.2)
DPO = RlsoConfig(objective="dpo", eta=2.5)


@pytest.mark.parametrize("num_profiles", [2, 3, 5])
@pytest.mark.parametrize("eta", [0.5, 1.0, 4.0])
def test_loss_is_equation_6_over_all_pairs(num_profiles: int, eta: float) -> None:
    rng = np.random.default_rng(0)
    rewards, logps, old = rng.normal(size=(3, 7, num_profiles))
    expected = [
        np.mean(
            [
                ((rewards[b, i] - rewards[b, j]) - ((logps - old)[b, i] - (logps - old)[b, j]) / eta) ** 2
                for i, j in itertools.combinations(range(num_profiles), 2)
            ]
        )
        for b in range(7)
    ]
    loss = equation_6(ScoredProfiles(*(torch.from_numpy(x) for x in (rewards, logps, old))), RlsoConfig(eta=eta))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-12)


def test_gradient_raises_the_better_profile() -> None:
    logps = torch.zeros(1, 2, requires_grad=True)
    equation_6(
        ScoredProfiles(torch.tensor([[1.0, 0.0]]), logps, torch.zeros(1, 2)), RlsoConfig(eta=1.0)
    ).sum().backward()
    assert logps.grad[0, 0] < 0 < logps.grad[0, 1]
    assert logps.grad.sum() == 0


def test_loss_is_zero_at_the_closed_form_solution() -> None:
    """Equation 2: the log-ratio is eta times the reward, up to a constant of the session."""
    rewards = torch.rand(4, 3, dtype=torch.float64)
    old = -10 * torch.rand(4, 3, dtype=torch.float64)
    solution = old + 2.5 * rewards - torch.rand(4, 1, dtype=torch.float64)
    assert equation_6(ScoredProfiles(rewards, solution, old), RlsoConfig(eta=2.5)).max() < 1e-24


def gradient(name: str, rewards: torch.Tensor, old: torch.Tensor, eta: float) -> torch.Tensor:
    """Of the mean loss over the sessions, where no step has been taken since the profiles were written."""
    logps = old.clone().requires_grad_()
    find_objective(name)(ScoredProfiles(rewards, logps, old), RlsoConfig(objective=name, eta=eta)).mean().backward()
    return logps.grad


@pytest.mark.parametrize("num_profiles", [2, 3, 8])
@pytest.mark.parametrize("eta", [0.5, 1.0, 4.0])
def test_the_first_gradient_of_rloo_is_that_of_equation_6_times_eta_over_4(num_profiles: int, eta: float) -> None:
    rewards, old = torch.randn(2, 5, num_profiles, dtype=torch.float64)
    rloo, rlso = (gradient(name, rewards, old, eta) for name in ("rloo", "rlso"))
    torch.testing.assert_close(rloo, rlso * eta / 4)


def test_rloo_is_minus_the_mean_of_ratio_times_advantage() -> None:
    rng = np.random.default_rng(0)
    rewards, logps, old = rng.normal(size=(3, 7, 4))
    expected = [
        -np.mean(
            [np.exp(logps[b, g] - old[b, g]) * (rewards[b, g] - np.delete(rewards[b], g).mean()) for g in range(4)]
        )
        for b in range(7)
    ]
    profiles = ScoredProfiles(*(torch.from_numpy(x) for x in (rewards, logps, old)))
    np.testing.assert_allclose(find_objective("rloo")(profiles, RlsoConfig()).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_is_a_loss_of_each_session(name: str) -> None:
    logps = torch.zeros(3, 4, requires_grad=True)
    profiles = ScoredProfiles(torch.rand(3, 4), logps, torch.zeros(3, 4))
    loss = find_objective(name)(profiles, RlsoConfig(objective=name))
    assert loss.shape == (3,)
    (gradient,) = torch.autograd.grad(loss.sum(), logps)
    assert torch.isfinite(gradient).all()
    assert gradient.any()


def some_profiles(num_sessions: int = 7, num_profiles: int = 4, spread: float = 0.5, seed: int = 0) -> ScoredProfiles:
    """Float64 profiles whose ratios lie on both sides of what GRPO clips."""
    rng = np.random.default_rng(seed)
    rewards, old, moved = (torch.from_numpy(rng.normal(size=(num_sessions, num_profiles))) for _ in range(3))
    return ScoredProfiles(rewards, old - 50 + spread * moved, old - 50)


def moved_by(profiles: ScoredProfiles, logps_BG: torch.Tensor) -> ScoredProfiles:
    """The same profiles where the policy has other log-probabilities."""
    return ScoredProfiles(profiles.rewards_BG, logps_BG, profiles.old_logps_BG)


def clipped_gains(rewards: np.ndarray, logps: np.ndarray, old: np.ndarray, epsilon: float) -> float:
    """GRPO of one session as its papers print it."""
    advantages = (rewards - rewards.mean()) / rewards.std()
    ratios = np.exp(logps - old)
    return -np.mean(np.minimum(ratios * advantages, np.clip(ratios, 1 - epsilon, 1 + epsilon) * advantages))


def preference_loss(rewards: np.ndarray, logps: np.ndarray, old: np.ndarray, beta: float) -> float:
    """DPO of one session without ties, from the quotients of probabilities."""
    best, worst = rewards.argmax(), rewards.argmin()
    quotient = np.exp(logps[best] - old[best]) / np.exp(logps[worst] - old[worst])
    return -np.log(quotient**beta / (1 + quotient**beta))


@pytest.mark.parametrize("epsilon", [0.05, 0.2, 0.9])
@pytest.mark.parametrize("num_profiles", [2, 3, 8])
def test_grpo_is_minus_the_mean_of_clipped_gains(num_profiles: int, epsilon: float) -> None:
    profiles = some_profiles(200, num_profiles)
    rewards, logps, old = (x.numpy() for x in (profiles.rewards_BG, profiles.logps_BG, profiles.old_logps_BG))
    expected = [clipped_gains(*session, epsilon) for session in zip(rewards, logps, old, strict=True)]
    loss = find_objective("grpo")(profiles, RlsoConfig(objective="grpo", clip_epsilon=epsilon))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("num_profiles", [2, 3, 8])
def test_the_first_gradient_of_grpo_is_that_of_rloo_on_rewards_standardised_by_session(num_profiles: int) -> None:
    rewards, old = torch.randn(2, 5, num_profiles, dtype=torch.float64)
    grpo, rloo = gradient("grpo", rewards, old, 1.0), gradient("rloo", standardize_by_session(rewards), old, 1.0)
    torch.testing.assert_close(grpo, rloo * (num_profiles - 1) / num_profiles)


def test_a_ratio_that_has_gone_far_enough_has_no_gradient_and_one_that_went_wrong_has() -> None:
    """However far: the probability of a long profile may change by more than float32 holds."""
    rewards = torch.tensor([[1.0, -1.0]]).expand(5, 2)
    moves = torch.tensor([[0.1, -0.1], [0.2, -0.3], [200.0, -200.0], [-0.3, 0.2], [-200.0, 50.0]])
    old = torch.full((5, 2), -300.0)
    logps = (old + moves).requires_grad_()
    loss = find_objective("grpo")(ScoredProfiles(rewards, logps, old), CLIPPED)
    loss.sum().backward()
    expected = torch.where(torch.tensor([[True], [False], [False], [True], [True]]), moves.exp() * rewards / -2, 0)
    torch.testing.assert_close(logps.grad, expected)
    torch.testing.assert_close(loss[2], torch.tensor((0.8 - 1.2) / 2))


@pytest.mark.parametrize("eta", [0.5, 1.0, 10.0])
@pytest.mark.parametrize("num_profiles", [2, 3, 8])
def test_dpo_is_minus_the_log_likelihood_that_the_best_is_preferred_to_the_worst(num_profiles: int, eta: float) -> None:
    profiles = some_profiles(50, num_profiles)
    rewards, logps, old = (x.numpy() for x in (profiles.rewards_BG, profiles.logps_BG, profiles.old_logps_BG))
    expected = [preference_loss(*session, 1 / eta) for session in zip(rewards, logps, old, strict=True)]
    loss = find_objective("dpo")(profiles, RlsoConfig(objective="dpo", eta=eta))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-11)


@pytest.mark.parametrize("eta", [0.5, 1.0, 10.0])
def test_dpo_starts_at_ln_2_and_moves_the_best_and_the_worst_alone(eta: float) -> None:
    old = torch.randn(1, 4, dtype=torch.float64)
    rewards = torch.tensor([[0.1, 3.0, -1.0, 2.9]], dtype=torch.float64)
    config = RlsoConfig(objective="dpo", eta=eta)
    assert find_objective("dpo")(ScoredProfiles(rewards, old, old), config).item() == pytest.approx(np.log(2))
    torch.testing.assert_close(
        gradient("dpo", rewards, old, eta), torch.tensor([[0, -1, 1, 0]], dtype=torch.float64) / (2 * eta)
    )


def test_dpo_is_the_mean_over_the_pairs_of_equally_good_and_equally_bad_profiles() -> None:
    old = torch.zeros(1, 5, dtype=torch.float64)
    logps = torch.tensor([[0.3, -0.2, 0.7, 0.1, -0.5]], dtype=torch.float64)
    rewards = torch.tensor([[2.0, 0.0, 2.0, 1.0, 0.0]], dtype=torch.float64)
    pairs = [(0, 1), (0, 4), (2, 1), (2, 4)]
    expected = np.mean([np.log1p(np.exp(-(logps[0, i] - logps[0, j]).item() / DPO.eta)) for i, j in pairs])
    assert find_objective("dpo")(ScoredProfiles(rewards, logps, old), DPO).item() == pytest.approx(expected)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_of_finite_differences(name: str) -> None:
    """Where no ratio is so near to GRPO's bounds that a difference crosses them."""
    profiles, config = some_profiles(), RlsoConfig(objective=name, eta=1.7)
    ratios = (profiles.logps_BG - profiles.old_logps_BG).exp()
    assert min((ratios - 0.8).abs().min(), (ratios - 1.2).abs().min()) > 1e-4
    logps = profiles.logps_BG.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda logps: find_objective(name)(moved_by(profiles, logps), config), logps)


@pytest.mark.parametrize("name", NAMES)
def test_a_constant_of_the_session_in_the_rewards_changes_nothing(name: str) -> None:
    profiles, config = some_profiles(), RlsoConfig(objective=name)
    moved = ScoredProfiles(profiles.rewards_BG + torch.randn(7, 1), profiles.logps_BG, profiles.old_logps_BG)
    torch.testing.assert_close(find_objective(name)(moved, config), find_objective(name)(profiles, config))


@pytest.mark.parametrize("name", ["grpo", "dpo"])
@pytest.mark.parametrize("standardize", STANDARDIZERS.values())
def test_how_rewards_are_standardised_changes_neither_grpo_nor_dpo(name: str, standardize) -> None:
    profiles, config = some_profiles(), RlsoConfig(objective=name)
    standard = ScoredProfiles(standardize(profiles.rewards_BG), profiles.logps_BG, profiles.old_logps_BG)
    torch.testing.assert_close(find_objective(name)(standard, config), find_objective(name)(profiles, config))


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_profiles_and_of_sessions_does_not_matter(name: str) -> None:
    profiles, config = some_profiles(), RlsoConfig(objective=name)
    profiles.rewards_BG[:, 1] = profiles.rewards_BG[:, 2]  # also where two are equally good
    order = torch.tensor([2, 0, 3, 1])
    shuffled = ScoredProfiles(*(getattr(profiles, field)[:, order].flip(0) for field in FIELDS))
    loss = find_objective(name)(profiles, config)
    torch.testing.assert_close(find_objective(name)(shuffled, config).flip(0), loss)


@pytest.mark.parametrize("name", NAMES)
def test_a_session_counts_as_it_does_alone(name: str) -> None:
    profiles, config = some_profiles(), RlsoConfig(objective=name)
    alone = [find_objective(name)(profiles.of_session(b, torch.ones(4, dtype=torch.bool)), config) for b in range(7)]
    torch.testing.assert_close(torch.cat(alone), find_objective(name)(profiles, config))


@pytest.mark.parametrize("name", ["rloo", "grpo", "dpo"])
def test_equal_rewards_teach_nothing(name: str) -> None:
    """Beside a session that does teach. Eq. 6 holds the log-ratios of such profiles together instead."""
    profiles = some_profiles(2)
    profiles.rewards_BG[0] = 0.7
    logps = profiles.logps_BG.clone().requires_grad_()
    loss = find_objective(name)(moved_by(profiles, logps), RlsoConfig(objective=name))
    loss.sum().backward()
    assert loss[0].abs() < 1e-15
    assert logps.grad[0].abs().max() < 1e-15
    assert logps.grad[1].any()
    if name != "rloo":  # whose mean of the others is rounded
        assert loss[0] == 0
        assert not logps.grad[0].any()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_unusable_profile_is_as_if_it_had_not_been_written(name: str, dtype: torch.dtype) -> None:
    """In the precisions of the loop too: float64 rewards and float32 log-probabilities."""
    profiles, config = some_profiles(3), RlsoConfig(objective=name)
    logps, old = profiles.logps_BG.to(dtype), profiles.old_logps_BG.to(dtype)
    kept = torch.tensor([True, False, True, True])
    expected = find_objective(name)(
        ScoredProfiles(profiles.rewards_BG[1:2, kept], logps[1:2, kept], old[1:2, kept]), config
    )
    logps[1, 1], old[2, :3] = math.nan, math.inf
    logps.requires_grad_()
    losses, shares = losses_of_usable(find_objective(name), ScoredProfiles(profiles.rewards_BG, logps, old), config)
    (losses * shares).sum().backward()
    torch.testing.assert_close(losses[1:2], expected)
    assert shares.tolist() == [1, 0.5, 0]
    assert losses[2] == 0
    assert torch.isfinite(logps.grad).all()
    assert logps.grad[1, 1] == 0
    assert logps.grad[0].any()
    assert not logps.grad[2].any()
