"""Draws follow the softmax, and each row draws from its own stream."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from langptune_rs.rollout.draws import CoreDraws, Draws, TorchDraws

BOTH = pytest.mark.parametrize("make", [CoreDraws, lambda seeds: TorchDraws(seeds, "cpu")], ids=["core", "torch"])
Make = Callable[[list[tuple[int, int]]], Draws]


@BOTH
def test_sampled_tokens_follow_the_softmax(make: Make) -> None:
    """A chi-squared test of one distribution over five tokens at temperature 0.7, each row one draw of its stream."""
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, -30.0])
    n = 40_000
    draws = make([(0, i) for i in range(n)])
    drawn = draws.choose(logits.expand(n, 5), torch.full((n,), 0.7), np.arange(n), 0)
    counts = np.bincount(drawn.numpy(), minlength=5)
    expected = torch.softmax(logits.double() / 0.7, -1).numpy() * n
    assert counts[4] == 0
    assert ((counts - expected)[:4] ** 2 / expected[:4]).sum() < 16.3  # 0.1% level, 3 degrees of freedom


@BOTH
def test_no_clock_is_ever_zero(make: Make) -> None:
    """It would win against any logit."""
    vocabulary = 49_152
    logits = torch.zeros(100, vocabulary)
    logits[:, 7] = 40  # any other token has less than one chance in 10^12
    for part in range(20):
        draws = make([(part, row) for row in range(100)])
        assert draws.choose(logits, torch.ones(100), np.arange(100), 0).eq(7).all()


@BOTH
def test_a_stream_depends_on_its_seed_alone(make: Make) -> None:
    logits = torch.zeros(2, 1000)
    pair, single = make([(7, 0), (7, 1)]), make([(7, 1)])
    for step in range(3):
        both = pair.choose(logits, torch.ones(2), np.arange(2), step)
        assert both[1] == single.choose(logits[:1], torch.ones(1), np.arange(1), step)[0]
        assert both[0] != both[1]


@BOTH
def test_rows_of_temperature_zero_are_greedy(make: Make) -> None:
    logits = torch.randn(4, 300, generator=torch.Generator().manual_seed(1))
    drawn = make([(0, row) for row in range(4)]).choose(logits, torch.tensor([0.0, 1, 0, 1]), np.arange(4), 0)
    assert drawn[[0, 2]].equal(logits.argmax(-1)[[0, 2]])
