"""Lean norms and feed-forward networks against autograd through transformers' own."""

import copy

import pytest
import torch
from tests.models.families import model_of
from transformers.models.gemma.modeling_gemma import GemmaMLP, GemmaRMSNorm
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from langptune_rs.models.lean import make_lean

WIDTH = 12


def modules() -> list[torch.nn.Module]:
    torch.manual_seed(0)
    norms = [LlamaRMSNorm(WIDTH, 1e-2), GemmaRMSNorm(WIDTH, 1e-2)]
    for norm in norms:
        torch.nn.init.normal_(norm.weight)
    networks = [kind(model_of(family).config) for family, kind in (("Llama", LlamaMLP), ("Gemma", GemmaMLP))]
    return [module.double() for module in (*norms, *networks)]


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("trains", [True, False])
def test_values_and_gradients_are_those_of_autograd(number: int, trains: bool) -> None:
    own = modules()[number].requires_grad_(trains)
    lean = copy.deepcopy(own)
    make_lean(lean)
    assert type(lean).__name__ == f"Lean{type(own).__name__}"
    width = getattr(own, "hidden_size", WIDTH)
    rows = torch.randn(2, 5, width, dtype=torch.float64)
    grads = []
    for module in (own, lean):
        inputs = rows.clone().requires_grad_()
        out = module(inputs)
        wanted = [inputs, *(p for p in module.parameters() if trains)]
        torch.manual_seed(1)
        grads.append((out, *torch.autograd.grad((out * torch.randn_like(out)).sum(), wanted)))
    for expected, found in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)  # Gemma's norm computes in float32


def test_a_copy_is_lean_too_and_keeps_its_own_weights() -> None:
    norm, *_ = modules()
    make_lean(norm)
    other = copy.deepcopy(norm)
    other.weight.data.zero_()
    rows = torch.ones(1, WIDTH, dtype=torch.float64)
    assert not other(rows).any()
    assert norm(rows).any()
    assert norm.state_dict().keys() == {"weight"}


def test_less_is_kept_for_the_backward_pass() -> None:
    def kept(module: torch.nn.Module) -> int:
        seen: dict[int, int] = {}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            seen[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = module(
                torch.randn(64, getattr(module, "hidden_size", WIDTH), dtype=torch.float64, requires_grad=True)
            )
        return sum(seen.values()) + out.numel()  # `out` lives as long as what was kept

    for module in modules():
        before = kept(module)
        make_lean(module)
        assert kept(module) < before
