"""Log-probabilities of tokens, without the logits of a whole batch in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn

ROWS = 512
"""Rows whose logits are in memory together."""
OUTPUTS = 8192
"""Rows of an output matrix in another precision that are converted together."""


class TokenLogps(nn.Module):
    """The output matrix of a language model and the softmax behind it."""

    def __init__(
        self,
        output: nn.Module,
        softcap: float | None,
        temperature: float,
        gradient_dtype: torch.dtype | None = None,
    ):
        """The products of gradients are computed in `gradient_dtype`, by default in the precision of the states."""
        super().__init__()
        self.weight = output.weight  # shared, so that ZeRO-3 gathers it for this module's forward
        self.bias = getattr(output, "bias", None)
        self._softcap, self._temperature, self._gradient_dtype = softcap, temperature, gradient_dtype

    def forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """Log-probability of each token under softmax(logits / temperature), float32 (n,), from hidden (n, width)."""
        gradient_dtype = self._gradient_dtype or hidden.dtype
        options = (self._softcap, self._temperature)
        logps = _TokenLogps.apply(hidden, self.weight, self.bias, tokens, gradient_dtype, *options)
        return cast(Tensor, logps)


class _TokenLogps(torch.autograd.Function):
    """Computes the logits of `ROWS` rows at a time and normalises them in float32.

    The gradient of a log-probability at its hidden state is computed in the forward pass, which has the probabilities;
    the backward pass scales it. The probabilities are computed again only where the matrix trains.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        tokens: Tensor,
        gradient_dtype: torch.dtype,
        *options: Any,
    ) -> Tensor:
        ctx.options, ctx.gradient_dtype = options, gradient_dtype  # options: softcap and temperature
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        logps = []
        for start in range(0, len(tokens), ROWS):
            chunk = slice(start, start + ROWS)
            logps_C, slope_CV = _logps_and_slope(
                hidden[chunk], weight, bias, tokens[chunk], *options, slope=gradient is not None
            )
            logps.append(logps_C)
            if gradient is not None and slope_CV is not None:
                gradient[chunk] = _slope_at_hidden(slope_CV.to(gradient_dtype), weight)
        ctx.save_for_backward(gradient, hidden, weight, bias, tokens)
        return torch.cat(logps) if logps else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor) -> tuple[Tensor | None, ...]:
        gradient, hidden, weight, bias, tokens = ctx.saved_tensors
        grad_hidden = None if gradient is None else gradient * grad_logps[:, None].to(gradient.dtype)
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if ctx.needs_input_grad[1] else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if ctx.needs_input_grad[2] else None
        if grad_weight is not None or grad_bias is not None:
            for start in range(0, len(tokens), ROWS):
                chunk = slice(start, start + ROWS)
                _, slope_CV = _logps_and_slope(hidden[chunk], weight, bias, tokens[chunk], *ctx.options, slope=True)
                assert slope_CV is not None
                slope_CV *= grad_logps[chunk, None]
                if grad_weight is not None:
                    grad_weight += slope_CV.to(ctx.gradient_dtype).T @ hidden[chunk].to(ctx.gradient_dtype)
                if grad_bias is not None:
                    grad_bias += slope_CV.sum(0)
        grad_weight = None if grad_weight is None else grad_weight.to(weight.dtype)
        grad_bias = None if grad_bias is None else grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def _raw_logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Logits (rows, vocabulary) in the dtype of `hidden`; a matrix in a shorter one is widened part by part."""
    if weight.dtype == hidden.dtype:
        return nn.functional.linear(hidden, weight, bias)
    logits = hidden.new_empty(len(hidden), len(weight))
    for outputs, part in _in_parts(weight, hidden.dtype):
        logits[:, outputs] = nn.functional.linear(hidden, part)
    return logits if bias is None else logits.add_(bias)


def _slope_at_hidden(slope: Tensor, weight: Tensor) -> Tensor:
    """The derivative at the hidden states, (rows, width), of one (rows, vocabulary) at their logits."""
    if weight.dtype == slope.dtype:
        return slope @ weight
    at_hidden = slope.new_zeros(len(slope), weight.shape[1], dtype=torch.promote_types(slope.dtype, weight.dtype))
    for outputs, part in _in_parts(weight, slope.dtype):
        at_hidden += slope[:, outputs] @ part
    return at_hidden


def _in_parts(weight: Tensor, dtype: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
    """`OUTPUTS` rows of a matrix at a time, in another dtype."""
    for start in range(0, len(weight), OUTPUTS):
        outputs = slice(start, start + OUTPUTS)
        yield outputs, weight[outputs].to(dtype)


def _logps_and_slope(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    tokens: Tensor,
    softcap: float | None,
    temperature: float,
    *,
    slope: bool,
) -> tuple[Tensor, Tensor | None]:
    """Log-probabilities (rows,) and, with `slope`, their derivatives by the raw logits (rows, vocabulary)."""
    logits = _raw_logits(hidden, weight, bias).float()
    bend = None
    if softcap:
        logits = logits.div_(softcap).tanh_()
        bend = 1 - logits.square() if slope else None
        logits *= softcap
    logits /= temperature
    normaliser = logits.logsumexp(-1, keepdim=True)
    logps = logits.gather(-1, tokens[:, None]) - normaliser
    if not slope:
        return logps.squeeze(1), None
    probabilities = logits.sub_(normaliser).exp_()
    derivative = probabilities.neg_()
    derivative[torch.arange(len(tokens), device=tokens.device), tokens] += 1
    derivative /= temperature
    return logps.squeeze(1), derivative if bend is None else derivative.mul_(bend)
