"""Log-probabilities and their gradients against autograd through the whole softmax, in float64."""

import pytest
import torch

from langptune_rs.models import log_probs
from langptune_rs.models.log_probs import TokenLogps


@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("gradient_dtype", [None, torch.bfloat16])
def test_values_and_gradients(
    monkeypatch, softcap: float | None, bias: bool, temperature: float, gradient_dtype: torch.dtype | None
) -> None:
    monkeypatch.setattr(log_probs, "ROWS", 4)  # ten rows in three chunks
    monkeypatch.setattr(log_probs, "OUTPUTS", 7)  # and thirty outputs in five parts
    torch.manual_seed(0)
    output = torch.nn.Linear(6, 30, bias=bias)
    hidden = torch.randn(10, 6, requires_grad=True)
    tokens, coefficients = torch.randint(30, (10,)), torch.randn(10)
    logps = TokenLogps(output, softcap, temperature, gradient_dtype)(hidden, tokens)

    whole = torch.nn.Linear(6, 30, bias=bias).double()
    whole.load_state_dict(output.state_dict())
    exact = hidden.detach().double().requires_grad_()
    logits = whole(exact)
    if softcap:
        logits = softcap * torch.tanh(logits / softcap)
    expected = (logits / temperature).log_softmax(-1).gather(-1, tokens[:, None]).squeeze(1)
    torch.testing.assert_close(logps.double(), expected, rtol=1e-5, atol=1e-5)

    inputs = [(hidden, exact), *zip(output.parameters(), whole.parameters(), strict=True)]
    actual = torch.autograd.grad((coefficients * logps).sum(), [a for a, _ in inputs])
    wanted = torch.autograd.grad((coefficients.double() * expected).sum(), [b for _, b in inputs])
    for a, b in zip(actual, wanted, strict=True):
        assert a.dtype == torch.float32
        if gradient_dtype is None or a.ndim == 1:  # the gradient of a bias is no product
            torch.testing.assert_close(a.double(), b, rtol=1e-4, atol=1e-5)
        else:
            assert (a - b).norm() < 2**-7 * b.norm()


def test_a_matrix_in_a_shorter_precision_is_widened_part_by_part(monkeypatch) -> None:
    torch.manual_seed(0)
    output = torch.nn.Linear(6, 30).requires_grad_(False)
    hidden, tokens = torch.randn(10, 6, requires_grad=True), torch.randint(30, (10,))
    output.weight.data = output.weight.bfloat16().float()
    expected = TokenLogps(output, None, 1.0)(hidden, tokens)
    (wanted,) = torch.autograd.grad(expected.sum(), hidden)

    output.weight.data = output.weight.bfloat16()
    monkeypatch.setattr(log_probs, "OUTPUTS", 7)
    logps = TokenLogps(output, None, 1.0)(hidden, tokens)
    torch.testing.assert_close(logps, expected)
    torch.testing.assert_close(torch.autograd.grad(logps.sum(), hidden)[0], wanted)


def test_a_frozen_matrix_gets_no_gradient_and_no_tokens_are_no_error() -> None:
    output = torch.nn.Linear(4, 7, bias=False).requires_grad_(False)
    hidden = torch.randn(3, 4, requires_grad=True)
    scorer = TokenLogps(output, None, 1.0)
    scorer(hidden, torch.tensor([0, 6, 2])).sum().backward()
    assert hidden.grad.abs().sum() > 0
    assert output.weight.grad is None
    assert scorer(hidden[:0], torch.tensor([], dtype=torch.long)).shape == (0,)
