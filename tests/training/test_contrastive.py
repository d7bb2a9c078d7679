"""InfoNCE against brute force in float64."""

import numpy as np
import pytest
import torch

from langptune_rs.training.contrastive import info_nce


def unit_rows(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    rows = rng.normal(size=(n, dim))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 0.1, 0.02])
def test_info_nce_is_equation_7(temperature: float) -> None:
    rng = np.random.default_rng(0)
    profiles, items = unit_rows(rng, 9, 5), unit_rows(rng, 9, 5)
    scores = np.exp(profiles @ items.T / temperature)
    expected = np.mean([-np.log(scores[b, b] / scores[b].sum()) for b in range(9)])
    loss = info_nce(torch.from_numpy(profiles), torch.from_numpy(items), torch.arange(9), temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_equal_targets_are_no_negatives() -> None:
    rng = np.random.default_rng(1)
    profiles, items = unit_rows(rng, 4, 6), unit_rows(rng, 4, 6)
    targets = torch.tensor([7, 3, 7, 5])
    scores = np.exp(profiles @ items.T / 0.1)
    scores[0, 2] = scores[2, 0] = 0
    expected = np.mean([-np.log(scores[b, b] / scores[b].sum()) for b in range(4)])
    loss = info_nce(torch.from_numpy(profiles), torch.from_numpy(items), targets, 0.1)
    assert loss.item() == pytest.approx(expected, rel=1e-12)


def test_popular_items_weigh_less_as_negatives() -> None:
    rng = np.random.default_rng(3)
    profiles, items = unit_rows(rng, 5, 4), unit_rows(rng, 5, 4)
    shares = np.array([0.5, 0.2, 0.1, 0.1, 0.1])
    weights = np.exp(profiles @ items.T / 0.2) / shares
    expected = np.mean([-np.log(weights[b, b] / weights[b].sum()) for b in range(5)])
    inputs = (torch.from_numpy(profiles), torch.from_numpy(items), torch.arange(5), 0.2)
    assert info_nce(*inputs, torch.from_numpy(np.log(shares))).item() == pytest.approx(expected, rel=1e-12)
    even = torch.full((5,), -2.0, dtype=torch.float64)
    assert info_nce(*inputs, even).item() == pytest.approx(info_nce(*inputs).item(), rel=1e-12)


def test_gradient_at_the_embeddings() -> None:
    rng = np.random.default_rng(2)
    profiles = torch.from_numpy(unit_rows(rng, 3, 4)).requires_grad_()
    items = torch.from_numpy(unit_rows(rng, 3, 4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda p, i: info_nce(p, i, torch.tensor([0, 1, 0]), 0.3), (profiles, items))
