"""How much a profile repeats itself, and how many profiles of a session differ."""

import pytest

from langptune_rs.rollout.variety import distinct_shares, repeated_share, repeated_shares


@pytest.mark.parametrize(
    ("profile", "share"),
    [
        ("", 0.0),
        ("comedy drama", 0.0),
        ("Likes slow films about families.", 0.0),
        ("comedy, drama, action, comedy, drama, Action", 1 / 4),
        ("drama drama drama drama drama", 2 / 3),
        ("la " * 100, 97 / 98),
    ],
)
def test_repeated_share_counts_runs_of_three_words(profile: str, share: float) -> None:
    assert repeated_share(profile) == pytest.approx(share)


def test_shares_of_many_profiles() -> None:
    assert repeated_shares(["a b c", "a a a a"]).tolist() == [0.0, 0.5]
    assert distinct_shares(["a", "a", "b", "c", "c", "c"], 3).tolist() == pytest.approx([2 / 3, 1 / 3])
    assert distinct_shares(["a", "b"], 2).tolist() == [1.0]
    assert len(repeated_shares([])) == len(distinct_shares([], 2)) == 0
