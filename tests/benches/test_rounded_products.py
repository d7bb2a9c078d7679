"""The products that benches/log_ratio_noise.py simulates, against float64 and torch's own."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

BENCHES = Path(__file__).parents[2] / "benches"


@pytest.fixture(scope="module")
def products():
    """The module; the scripts import it as their neighbour."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHES))
        yield importlib.import_module("peers.rounded_products")
        for name in ("peers.rounded_products", "peers"):
            sys.modules.pop(name, None)


def to_bits(values: Tensor, bits: int, round_: np.ufunc) -> np.ndarray:
    """The numbers of so many significant bits that are nearest, or next towards 0."""
    fractions, exponents = np.frexp(values.double().numpy())
    return np.ldexp(round_(fractions * 2**bits), exponents - bits)


def test_numbers_are_rounded_as_hardware_rounds_them(products):
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0)) * torch.logspace(-3, 3, 4000)
    values = values[values.abs() >= 2**-14]  # float16 has fewer bits below
    for name, bits, round_ in (
        ("bf16", 8, np.rint),
        ("fp16", 11, np.rint),
        ("tf32", 11, np.rint),
        ("tf32_cut", 11, np.trunc),
    ):
        (rounded,) = getattr(products, name)(values)
        assert np.array_equal(rounded.double().numpy(), to_bits(values, bits, round_)), name
    parts = products.two_bf16(values)
    assert all(torch.equal(part, part.bfloat16().float()) for part in parts)
    assert ((sum(parts) - values).abs() <= values.abs() * 2**-16).all()


def test_a_linear_layer_multiplies_the_parts(products):
    rows, weight, bias = (
        torch.randn(2, 7, 48, requires_grad=True),
        torch.randn(30, 48, requires_grad=True),
        torch.randn(30),
    )
    exact = F.linear(rows.double(), weight.double(), bias.double())
    errors = {}
    for name in ("bf16", "tf32", "two_bf16"):
        with products.RoundedProducts(getattr(products, name)):
            errors[name] = (F.linear(rows, weight, bias) - exact).abs().max().item()
    assert errors["bf16"] > 5 * errors["tf32"] > 25 * errors["two_bf16"] > 0
    with products.RoundedProducts(products.bf16):
        out = F.linear(rows, weight, bias)
    expected = F.linear(rows.bfloat16().double(), weight.bfloat16().double(), bias.double())
    torch.testing.assert_close(out.double(), expected, atol=1e-4, rtol=1e-5)
    slope = torch.randn_like(out).bfloat16().float()
    gradients = torch.autograd.grad(out, (rows, weight), slope)
    torch.testing.assert_close(gradients[0], slope @ weight.bfloat16().float(), atol=1e-4, rtol=1e-4)
    of_weight = slope.flatten(0, 1).T @ rows.bfloat16().float().flatten(0, 1)
    torch.testing.assert_close(gradients[1], of_weight, atol=1e-4, rtol=1e-4)


def test_an_exact_head_is_left_alone(products):
    rows, head, other = torch.randn(5, 16), torch.randn(50, 16), torch.randn(40, 16)
    with products.RoundedProducts(products.bf16, exact_rows=50):
        assert torch.equal(F.linear(rows, head), rows @ head.T)
        assert not torch.equal(F.linear(rows, other), rows @ other.T)


@pytest.mark.parametrize("kind", ["causal", "masked", "scaled"])
def test_attention_without_rounding_is_torch_s(products, kind):
    query, key, value = (torch.randn(1, heads, 9, 16, requires_grad=True) for heads in (4, 2, 2))
    mask = torch.zeros(9, 9).masked_fill_(torch.rand(9, 9) < 0.3, -torch.inf)
    mask[:, 0] = 0
    options = {"causal": {"is_causal": True}, "masked": {"attn_mask": mask}, "scaled": {"scale": 0.1}}[kind]
    outputs = [F.scaled_dot_product_attention(query, key, value, enable_gqa=True, **options)]
    with products.RoundedProducts(lambda values: (values,)):
        outputs.append(F.scaled_dot_product_attention(query, key, value, enable_gqa=True, **options))
    torch.testing.assert_close(*outputs)
    slope = torch.randn_like(outputs[0])
    first, second = (torch.autograd.grad(output, (query, key, value), slope) for output in outputs)
    torch.testing.assert_close(first, second)
