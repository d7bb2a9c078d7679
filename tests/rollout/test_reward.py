"""The reward of a profile, how rewards are standardised, and the share of a profile that is copied."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from langptune_rs.arrays import Ragged
from langptune_rs.config import reward as config_reward
from langptune_rs.config.reward import parse_reward
from langptune_rs.errors import ConfigError
from langptune_rs.rollout import reward as rollout_reward
from langptune_rs.rollout.copying import copied_share
from langptune_rs.rollout.reward import (
    STANDARDIZERS,
    Outcomes,
    check_recommender,
    equal_share,
    penalize,
    standardize,
    values_of,
    weighted_sum,
    with_overlong,
)

RANKS = Ragged(np.array([0, 1, 3, 4]), np.array([1, 3, 7, 1000]))
OUTCOMES = Outcomes(
    RANKS,
    Ragged(RANKS.offsets, np.array([-0.5, -2.0, -4.0, -9.0])),
    lengths=np.array([0.1, 0.5, 1.0]),
    copied=np.array([0.0, 0.25, 1.0]),
    repetition=np.array([0.0, 0.0, 0.5]),
)
"""Three profiles; the session of the second has two targets."""


def reward_of(text: str) -> np.ndarray:
    terms = parse_reward(text)
    return weighted_sum(terms, values_of(terms, OUTCOMES))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ndcg", [1.0, (0.5 + 1 / 3) / 2, 1 / math.log2(1001)]),
        ("ndcg@5", [1.0, 0.25, 0.0]),
        ("mrr", [1.0, (1 / 3 + 1 / 7) / 2, 1e-3]),
        ("mrr@7", [1.0, (1 / 3 + 1 / 7) / 2, 0.0]),
        ("log_rank", [0.0, -(math.log(3) + math.log(7)) / 2, -math.log(1000)]),
        ("log_softmax", [-0.5, -3.0, -9.0]),
        ("-0.5 length", [-0.05, -0.25, -0.5]),
        ("copied", [0.0, 0.25, 1.0]),
        ("2 * repetition", [0.0, 0.0, 1.0]),
        ("mrr@1 + 0.1 log_softmax - copied", [0.95, -0.55, -1.9]),
    ],
)
def test_a_reward_is_the_weighted_sum_of_its_terms_over_all_targets(text: str, expected: list[float]) -> None:
    np.testing.assert_allclose(reward_of(text), expected, rtol=1e-15)


def test_recipes_and_rewards_know_the_same_terms() -> None:
    assert list(rollout_reward.TERMS) == list(config_reward.TERMS)


def test_ndcg_of_one_target_has_the_bits_of_its_definition() -> None:
    ranks = np.arange(1, 2000)
    outcomes = Outcomes(Ragged(np.arange(2000), ranks), None, *[np.zeros(1999)] * 3)
    terms = parse_reward("ndcg")
    rewards = weighted_sum(terms, values_of(terms, outcomes))
    assert rewards.tolist() == [1 / math.log2(1 + rank) for rank in ranks]


def test_a_profile_that_does_not_end_gets_gamma_or_loses_the_penalty() -> None:
    rewards, finished = np.array([1.0, 1.0, -3.0]), np.array([True, False, False])
    assert with_overlong(rewards, finished, reward=-0.5, penalty=None).tolist() == [1.0, -0.5, -0.5]
    assert with_overlong(rewards, finished, reward=-0.5, penalty=0.25).tolist() == [1.0, 0.75, -3.25]
    assert with_overlong(rewards, finished, reward=-0.5, penalty=0.0).tolist() == rewards.tolist()


def test_a_recommender_that_only_ranks_is_refused_for_a_reward_of_scores() -> None:
    check_recommender(parse_reward("ndcg + log_rank"), gives_scores=False)
    check_recommender(parse_reward("ndcg + log_softmax"), gives_scores=True)
    with pytest.raises(ConfigError, match=r"rlso.reward has log_softmax, .* gives only ranks. Write log_rank instead"):
        check_recommender(parse_reward("ndcg + 0.1 log_softmax"), gives_scores=False)


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


REWARDS = st.tuples(st.integers(1, 5), st.integers(2, 5)).flatmap(
    lambda shape: hnp.arrays(np.float64, shape, elements=st.sampled_from([-3.0, 0.0, 0.1, 0.3, 2.5]))
)


@given(REWARDS)
def test_by_session_each_session_has_zero_mean_and_unit_variance(rewards: np.ndarray) -> None:
    standard = STANDARDIZERS["session"](torch.from_numpy(rewards)).numpy()
    for raw, row in zip(rewards, standard, strict=True):
        spread = raw.std() if np.ptp(raw) else 1.0
        np.testing.assert_allclose(row, (raw - raw.mean()) * bool(np.ptp(raw)) / spread, atol=1e-12)


@given(REWARDS)
def test_leaving_one_out_is_the_difference_to_the_others_mean(rewards: np.ndarray) -> None:
    num_profiles = rewards.shape[1]
    apart = np.array([[row[g] - np.delete(row, g).mean() for g in range(num_profiles)] for row in rewards])
    size = np.sqrt(np.mean(apart**2))
    standard = STANDARDIZERS["leave-one-out"](torch.from_numpy(rewards)).numpy()
    if np.ptp(rewards, axis=1).any():
        np.testing.assert_allclose(standard, apart / size, atol=1e-12)
    else:
        assert not standard.any()


@given(REWARDS, st.floats(0.1, 10), st.floats(-5, 5))
def test_no_standardisation_depends_on_the_scale_and_the_zero_of_a_reward(rewards, scale, shift) -> None:
    for function in STANDARDIZERS.values():
        standard, other = (function(torch.from_numpy(values)) for values in (rewards, scale * rewards + shift))
        if all(np.ptp(row) == 0 for row in rewards):
            continue  # equal rewards may differ after the shift
        np.testing.assert_allclose(standard, other, atol=1e-6)


def test_leaving_one_out_and_the_session_ignore_what_sessions_differ_by() -> None:
    rewards = torch.rand(6, 3, dtype=torch.float64)
    easier = rewards + 10 * torch.rand(6, 1, dtype=torch.float64)
    for name in ("session", "leave-one-out"):
        torch.testing.assert_close(STANDARDIZERS[name](rewards), STANDARDIZERS[name](easier))
    gaps = [(standardize(x)[:, 0] - standardize(x)[:, 1]).abs().mean() for x in (rewards, easier)]
    assert gaps[1] < gaps[0] / 3


def test_equal_rewards_are_counted_by_session() -> None:
    assert equal_share(torch.tensor([[1.0, 1.0], [2.0, 2.0]])) == 1.0, "though sessions differ"
    assert equal_share(torch.tensor([[1.0, 1.0], [2.0, 1.0], [0.0, 0.5], [0.0, 0.0]])) == 0.5


@pytest.mark.parametrize("name", STANDARDIZERS)
def test_equal_rewards_are_zero_and_missing_ones_count_nowhere(name: str) -> None:
    function = STANDARDIZERS[name]
    assert torch.equal(function(torch.full((4, 3), 0.1)), torch.zeros(4, 3))
    assert torch.equal(function(torch.full((1, 2), -7.0)), torch.zeros(1, 2))
    rewards = torch.tensor([[0.1, 0.1, 0.1], [1.0, 2.0, 4.0]], dtype=torch.float64)
    if name != "batch":
        assert torch.equal(function(rewards)[0], torch.zeros(3, dtype=torch.float64))
    missing = torch.tensor([[0.5, math.nan, 1.0], [math.nan] * 3, [2.0, 4.0, math.nan]], dtype=torch.float64)
    found = function(missing)
    assert torch.equal(found.isnan(), missing.isnan())
    left = function(torch.tensor([[0.5, 1.0], [2.0, 4.0]], dtype=torch.float64))
    torch.testing.assert_close(found[[0, 0, 2, 2], [0, 2, 0, 1]], left.flatten())
    assert function(torch.full((2, 2), math.nan)).isnan().all()
    alone = function(torch.tensor([[1.0, math.nan], [2.0, 3.0]], dtype=torch.float64))
    assert alone.isfinite().sum() == 3


@pytest.mark.parametrize("name", STANDARDIZERS)
def test_within_a_session_rewards_are_only_scaled(name: str) -> None:
    """So a pair of Eq. 6 sees a multiple of its difference: one for all sessions, or one for each by session."""
    rewards = torch.rand(5, 4, dtype=torch.float64) * torch.arange(1, 6)[:, None]
    standard = STANDARDIZERS[name](rewards)
    within, raw = (x - x.mean(1, keepdim=True) for x in (standard, rewards))
    scales_B = within[:, 0] / raw[:, 0]
    torch.testing.assert_close(within, raw * scales_B[:, None])
    if name == "session":
        torch.testing.assert_close(scales_B, 1 / rewards.std(1, unbiased=False))
    else:
        torch.testing.assert_close(scales_B, scales_B[:1].expand(5))
