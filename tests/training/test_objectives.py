"""Losses of the policy step against float64 and closed forms."""

import itertools
from typing import get_args

import numpy as np
import pytest
import torch

from langptune_rs.config.rlso import RlsoConfig
from langptune_rs.training.objectives import ScoredProfiles, find_objective

equation_6 = find_objective("rlso")


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


@pytest.mark.parametrize("name", get_args(RlsoConfig.model_fields["objective"].annotation))
def test_every_objective_is_a_loss_of_each_session(name: str) -> None:
    logps = torch.zeros(3, 4, requires_grad=True)
    profiles = ScoredProfiles(torch.rand(3, 4), logps, torch.zeros(3, 4))
    loss = find_objective(name)(profiles, RlsoConfig(objective=name))
    assert loss.shape == (3,)
    (gradient,) = torch.autograd.grad(loss.sum(), logps)
    assert torch.isfinite(gradient).all()
    assert gradient.any()
