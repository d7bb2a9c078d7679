"""The reward of a profile and the share of it that is copied."""

import math

import numpy as np
import pytest
import torch

from langptune_rs.rollout.copying import copied_share
from langptune_rs.rollout.reward import penalize, recommender_reward, standardize


def test_reward_is_ndcg_over_the_whole_catalog() -> None:
    ranks = np.array([1, 3, 1000])
    rewards = recommender_reward(ranks, np.ones(3, bool), metric="ndcg", overlong_reward=0.0)
    np.testing.assert_allclose(rewards, [1.0, 0.5, 1 / math.log2(1001)])


def test_overlong_profiles_get_gamma_whatever_their_rank() -> None:
    rewards = recommender_reward(np.array([1, 1]), np.array([True, False]), metric="ndcg@20", overlong_reward=-0.5)
    assert rewards.tolist() == [1.0, -0.5]


@pytest.mark.parametrize(
    ("profile", "share"),
    [
        ("The Empire Strikes Back", 1.0),
        ("likes the empire strikes back a lot", 4 / 7),
        ("the empire of the sun", 0.0),
        ("Empire Strikes", 0.0),
        ("", 0.0),
    ],
)
def test_copied_share_counts_words_in_long_runs(profile: str, share: float) -> None:
    assert copied_share(profile, "The Empire Strikes Back (1980)\nAlien (1979)") == pytest.approx(share)


def test_standardize_has_zero_mean_and_unit_variance() -> None:
    rewards = torch.rand(16, 2, dtype=torch.float64)
    standard = standardize(rewards)
    assert abs(standard.mean()) < 1e-12
    assert abs(standard.var(unbiased=False) - 1) < 1e-12
    assert torch.equal(standardize(torch.full((4, 2), 0.3)), torch.zeros(4, 2))


def test_penalty_is_equation_8() -> None:
    assert penalize(torch.tensor(0.5), torch.tensor(-3.0), torch.tensor(-5.0), gamma=0.2).item() == pytest.approx(0.1)
