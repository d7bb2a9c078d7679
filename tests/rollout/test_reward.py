"""The reward of a profile and the share of it that is copied."""

import math

import numpy as np
import pytest

from langptune_rs.rollout.copying import copied_share
from langptune_rs.rollout.reward import recommender_reward


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
