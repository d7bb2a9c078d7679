"""The next token of each row of a batch: the likeliest, or a draw from the row's own seeded stream.

A draw from softmax(logits / temperature) is the token with the largest logit / temperature - log(E), with independent
standard exponentials E (the exponential race, or Gumbel-max trick). Rounding changes it only where two tokens nearly
tie; inverting the cumulative distribution would let rounding move every rare token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langptune_rs import _core
from langptune_rs.seeds import seed_sequence


class Draws(Protocol):
    """What chooses the tokens of some rows, which are known by their index."""

    def choose(self, logits: Tensor, temperatures: Tensor, rows: NDArray[np.int64], step: int) -> Tensor:
        """The next token of these rows, int64 (rows,), from logits (rows, vocabulary); token `step` of each profile.

        A row of temperature 0 is greedy. A step is asked for once, in ascending order.
        """


def draws(seeds: Sequence[tuple[int, int]], device: torch.device) -> Draws:
    """The streams of a batch: row r draws from the stream of `seeds[r]`."""
    return CoreDraws(seeds) if device.type == "cpu" else TorchDraws(seeds, device)


class CoreDraws:
    """Draws by the core, on the CPU: a number is a function of stream, step and token."""

    def __init__(self, seeds: Sequence[tuple[int, int]]):
        self._keys = np.array([_word(seed) for seed in seeds], dtype=np.uint64)

    def choose(self, logits: Tensor, temperatures: Tensor, rows: NDArray[np.int64], step: int) -> Tensor:
        """See `Draws.choose`."""
        chosen = np.empty(len(rows), dtype=np.int64)
        _core.choose(logits.float().contiguous().numpy(), temperatures.numpy(), self._keys[rows], step, chosen)
        return torch.from_numpy(chosen)


class TorchDraws:
    """Draws by torch on the model's own device, so that a GPU need not wait for the CPU."""

    def __init__(self, seeds: Sequence[tuple[int, int]], device: torch.device | str):
        self._streams = [torch.Generator(device).manual_seed(int(_word(seed) >> np.uint64(1))) for seed in seeds]

    def choose(self, logits: Tensor, temperatures: Tensor, rows: NDArray[np.int64], step: int) -> Tensor:
        """See `Draws.choose`."""
        chosen = logits.argmax(-1)
        sampled = temperatures.nonzero().squeeze(1)
        if len(sampled):
            scores = logits[sampled].float().div_(temperatures[sampled, None])
            scores -= self._exponentials(rows[sampled.cpu().numpy()], scores).log_()
            chosen[sampled] = scores.argmax(-1)
        return chosen

    def _exponentials(self, rows: NDArray[np.int64], like: Tensor) -> Tensor:
        """The next standard exponentials of these rows, float32 in the shape of `like` (rows, vocabulary)."""
        noise = torch.empty_like(like)
        for row, out in zip(rows, noise, strict=True):
            out.exponential_(generator=self._streams[row])
        return noise


def _word(seed: tuple[int, int]) -> np.uint64:
    return np.uint64(seed_sequence(*seed).generate_state(1, np.uint64)[0])
