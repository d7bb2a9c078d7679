"""The attention of packed texts against float64, and its gradient where inputs have 16 bits."""

import pytest
import torch

from langptune_rs.models.attention import Texts, causal_attention

HEADS, WIDTH = 4, 32
LENGTHS = (5, 5, 70, 16)


def inputs(dtype):
    """Query, key and value of rows of texts, (1, heads, tokens, width), in numbers that every dtype has."""
    return [part.requires_grad_() for part in drawn(3, 1, HEADS, sum(LENGTHS), WIDTH, dtype=dtype)]


def drawn(*shape, dtype):
    """The same eighths between -2 and 2 in any dtype."""
    return (torch.randint(-16, 17, shape, generator=torch.Generator().manual_seed(0)) / 8).to(dtype)


def packed(query, key, value):
    return Texts(LENGTHS).attend(0, query, key, value, None)


def causal(query, key, value):
    return causal_attention(query, key, value, None).transpose(1, 2)


@pytest.mark.parametrize("attention", [packed, causal])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradients_of_16_bits_are_those_of_float64_rounded_once(attention, dtype):
    def gradients(dtype):
        given = inputs(dtype)
        out = attention(*given)
        assert out.dtype == dtype
        out.backward(drawn(*out.shape, dtype=dtype))
        return out, [part.grad for part in given]

    out, found = gradients(dtype)
    true_out, true = gradients(torch.float64)
    rounding = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), true_out, rtol=rounding, atol=1e-5)
    for grad, exact in zip(found, true, strict=True):
        torch.testing.assert_close(grad.double(), exact, rtol=2 * rounding, atol=0.01 * rounding)


def test_texts_do_not_see_each_other():
    query, key, value = inputs(torch.float64)
    out = packed(query, key, value)[0]
    start = 0
    for length in LENGTHS:
        own = slice(start, start + length)
        scores = (query[0, :, own] @ key[0, :, own].mT) / WIDTH**0.5
        alone = (scores.softmax(-1) @ value[0, :, own]).transpose(0, 1)
        torch.testing.assert_close(out[own], alone)
        start += length
