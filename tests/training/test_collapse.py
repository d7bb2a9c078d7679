"""Entropy, and the warning of a policy that has collapsed."""

import math

import pytest
import torch

from langptune_rs.training.collapse import CollapseWarning, entropy, signs_of_collapse

HEALTHY = {
    "profile/distinct_share": 0.9,
    "profile/repetition": 0.05,
    "profile/copied_share": 0.66,
    "profile/entropy": 1.2,
}
COLLAPSED = {
    "profile/distinct_share": ("Of a session's 3 profiles only 1.5 differ on average", 0.5),
    "profile/repetition": ("Profiles write 80% of their runs of three words again", 0.8),
    "profile/copied_share": ("80% of the words of profiles are copied from titles of the history", 0.8),
    "profile/entropy": ("an entropy of 0.001 nats", 0.001),
}


def test_entropy_is_the_mean_over_the_tokens_of_usable_profiles() -> None:
    logps = torch.tensor([[-6.0, -2.0], [math.nan, -4.0]])
    assert entropy(logps, torch.tensor([[3.0, 1.0], [9.0, 2.0]])) == pytest.approx(12 / 6)
    assert math.isnan(entropy(torch.full((1, 2), math.nan), torch.ones(1, 2)))


@pytest.mark.parametrize("key", COLLAPSED)
def test_a_collapse_is_named_with_its_remedy_once(key: str, capsys: pytest.CaptureFixture[str]) -> None:
    message, value = COLLAPSED[key]
    warning = CollapseWarning(num_profiles=3)
    warning.check(HEALTHY)
    assert capsys.readouterr().err == ""
    warning.check({**HEALTHY, key: value})
    said = capsys.readouterr().err
    assert said.startswith("warning: the policy is collapsing.")
    assert message in said
    assert "rlso.kl_penalty" in said
    warning.check({**HEALTHY, key: value})
    assert capsys.readouterr().err == ""
    warning.check({other: sick for other, (_, sick) in COLLAPSED.items()})
    said = capsys.readouterr().err
    assert message not in said
    assert all(other in said for other, _ in COLLAPSED.values() if other != message), "a later sign is named too"


def test_all_signs_are_named_together() -> None:
    metrics = {key: value for key, (_, value) in COLLAPSED.items()}
    signs = signs_of_collapse(metrics, num_profiles=3)
    assert all(message in sign for sign, (message, _) in zip(signs.values(), COLLAPSED.values(), strict=True))
    assert signs_of_collapse({**HEALTHY, "profile/entropy": math.nan}, num_profiles=3) == {}
