"""A batch of prompts and of the profiles that are being written for them: what reads the one and writes the other.

On a CPU the kernels of the core do it, for every model whose layers they know. Otherwise transformers' own layers run
over packed rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from langptune_rs.models.attention import Layout, missing_tokens
from langptune_rs.models.decoder import packed_weights
from langptune_rs.models.fused import FusedDecoder, Tokens
from langptune_rs.models.linear import PackedLinear
from langptune_rs.models.policy import Policy, output_matrix
from langptune_rs.models.profile_cache import ProfileCache

PROMPT_TOKENS = 2048
"""Tokens of prompts in one forward pass: enough to keep matrix products fast, few enough for the CPU's caches."""


class Batch(Protocol):
    """One batch. Its rows, prompt by prompt, are the samples that are still being written."""

    def read(self, *, keep_states: bool) -> tuple[list[Tensor], Tensor]:
        """Read the prompts.

        Returns the states at the cut (tokens, width) of each whole prompt, if they are kept, in the policy's precision
        and in the memory of the CPU; and the logits of the token after each prompt (prompts, vocabulary).
        """

    def write(self, step: int, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Append a token to each row, token `step` of its profile, counted from 0.

        `tokens` and `positions` are int64 (rows,). Returns the states at the cut (rows, width), and the logits of the
        token after these (rows, vocabulary).
        """

    def keep(self, unfinished: NDArray[np.bool_]) -> None:
        """Drop all rows but the `unfinished`, bool (rows,)."""


class Reader(Protocol):
    """What opens batches of one policy while its weights do not change."""

    def batch(self, prompts: Sequence[Sequence[int]], num_samples: int, max_tokens: int) -> Batch:
        """A batch of prompts, best in ascending order of their lengths, with `num_samples` profiles for each."""


@contextmanager
def reading(policy: Policy) -> Iterator[Reader]:
    """Inside the block, the policy's weights are in the form that reading and writing needs; they must not change."""
    fused = FusedDecoder.of(policy.decoder, policy.dtype) if policy.is_fusable else None
    if fused is not None:
        yield FusedReader(policy, fused)
        return
    with policy.in_one_precision(), packed_weights(policy.model):
        yield PackedReader(policy)


class FusedReader:
    """Reads and writes by the kernels of the core."""

    def __init__(self, policy: Policy, fused: FusedDecoder):
        self._policy, self._fused = policy, fused
        self._output = PackedLinear([output_matrix(policy.model)], policy.dtype)

    def batch(self, prompts: Sequence[Sequence[int]], num_samples: int, max_tokens: int) -> Batch:
        """See `Reader.batch`."""
        return FusedBatch(self._policy, self._fused, self._output, prompts, num_samples, max_tokens)


class FusedBatch:
    """Segments of the cache: the prefix that all prompts share, what follows of each, and each sample's profile."""

    def __init__(
        self,
        policy: Policy,
        fused: FusedDecoder,
        output: PackedLinear,
        prompts: Sequence[Sequence[int]],
        num_samples: int,
        max_tokens: int,
    ):
        self._policy, self._fused, self._output = policy, fused, output
        num_shared = num_shared_tokens(prompts)
        self._prefix, self._prompts = prompts[0][:num_shared], [prompt[num_shared:] for prompt in prompts]
        num_profiles = len(prompts) * num_samples
        owners = np.repeat(np.arange(len(prompts)), num_samples)
        self._cache = fused.cache(
            [num_shared, *map(len, self._prompts), *[max_tokens] * num_profiles],
            [None, *[0] * len(prompts), *(owners + 1).tolist()],
        )
        self._segments = 1 + len(prompts) + np.arange(num_profiles)

    def read(self, *, keep_states: bool) -> tuple[list[Tensor], Tensor]:
        """See `Batch.read`."""
        num_shared = len(self._prefix)
        shared = None
        for start in range(0, num_shared, PROMPT_TOKENS):
            part = self._prefix[start : start + PROMPT_TOKENS]
            positions = np.arange(start, start + len(part))
            at_cut, _ = self._run(part, positions, np.zeros_like(positions), np.zeros(1, np.int64))
            if keep_states:
                shared = at_cut if shared is None else torch.cat([shared, at_cut])
        states: list[Tensor] = []
        logits: list[Tensor] = []
        for prompts in parts_of([len(prompt) for prompt in self._prompts], PROMPT_TOKENS):
            lengths = [len(self._prompts[i]) for i in prompts]
            ids = [token for i in prompts for token in self._prompts[i]]
            positions = np.concatenate([num_shared + np.arange(length) for length in lengths])
            segments = np.repeat([1 + i for i in prompts], lengths)
            at_cut, final = self._run(ids, positions, segments, np.cumsum(lengths) - 1)
            logits.append(self._logits(final))
            if keep_states:
                own = torch.split(at_cut, lengths)
                states += own if shared is None else [torch.cat([shared, part]) for part in own]
        return states, torch.cat(logits)

    def write(self, step: int, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See `Batch.write`."""
        at_cut, final = self._run(tokens.tolist(), positions.numpy(), self._segments, np.arange(len(tokens)))
        return at_cut, self._logits(final)

    def keep(self, unfinished: NDArray[np.bool_]) -> None:
        """See `Batch.keep`."""
        self._segments = self._segments[unfinished]

    def _run(
        self, ids: Sequence[int], positions: NDArray[np.int64], segments: NDArray[np.int64], read: NDArray[np.int64]
    ) -> tuple[Tensor, Tensor]:
        """States at the cut (tokens, width), in the policy's precision, and final ones (read, width)."""
        embeddings = self._policy.model.get_input_embeddings()(torch.tensor(ids))
        tokens = Tokens(embeddings, torch.from_numpy(positions), segments, read)
        at_cut, final = self._fused.run(self._cache, tokens, self._policy.cut)
        return at_cut.to(self._policy.dtype), final

    def _logits(self, final: Tensor) -> Tensor:
        return self._policy.capped(self._output(final))


class PackedReader:
    """Reads and writes by transformers' own layers."""

    def __init__(self, policy: Policy):
        self._policy = policy

    def batch(self, prompts: Sequence[Sequence[int]], num_samples: int, max_tokens: int) -> Batch:
        """See `Reader.batch`."""
        return PackedBatch(self._policy, prompts, num_samples, max_tokens)


class PackedBatch:
    """All rows packed into one row for transformers' layers."""

    def __init__(self, policy: Policy, prompts: Sequence[Sequence[int]], num_samples: int, max_tokens: int):
        self._policy, self._device = policy, policy.model.device
        num_shared = num_shared_tokens(prompts)
        self._prefix, self._prompts = prompts[0][:num_shared], [prompt[num_shared:] for prompt in prompts]
        embedding = cast(Tensor, policy.model.get_input_embeddings().weight)
        self._cache = ProfileCache([len(prompt) for prompt in prompts], num_samples, max_tokens, like=embedding)

    def read(self, *, keep_states: bool) -> tuple[list[Tensor], Tensor]:
        """See `Batch.read`."""
        prefix, last_layer = self._prefix, len(self._policy.decoder.layers) - 1
        prefix_states = None
        if prefix:
            prefix_states, _ = self._run(prefix, range(len(prefix)), self._cache.reading_prefix(), [0])
        states: list[Tensor] = []
        logits: list[Tensor] = []
        for part in parts_of([len(prompt) for prompt in self._prompts], PROMPT_TOKENS):
            lengths = [len(self._prompts[i]) for i in part]
            padding = [0] * missing_tokens(sum(lengths))
            ids = [token for i in part for token in self._prompts[i]] + padding
            positions = [len(prefix) + position for length in lengths for position in range(length)] + padding
            layout = self._cache.reading(part, lengths, last_layer)
            at_cut, next_logits = self._run(ids, positions, layout, (np.cumsum(lengths) - 1).tolist())
            logits.append(next_logits)
            if keep_states:
                own = torch.split(at_cut[: sum(lengths)].cpu(), lengths)
                states += own if prefix_states is None else [torch.cat([prefix_states.cpu(), part]) for part in own]
        return states, torch.cat(logits)

    def write(self, step: int, tokens: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """See `Batch.write`."""
        all_rows = torch.arange(len(tokens), device=self._device)
        return self._forward(tokens, positions, self._cache.writing(step), all_rows)

    def keep(self, unfinished: NDArray[np.bool_]) -> None:
        """See `Batch.keep`."""
        self._cache.keep(unfinished)

    def _run(
        self, ids: Sequence[int], positions: Sequence[int], layout: Layout, last: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        input_ids, position_ids, rows = (torch.tensor(x, device=self._device) for x in (ids, positions, last))
        return self._forward(input_ids, position_ids, layout, rows)

    def _forward(self, ids: Tensor, positions: Tensor, layout: Layout, rows: Tensor) -> tuple[Tensor, Tensor]:
        """States at the cut (tokens, width) of all tokens, and logits (rows, vocabulary) after some."""
        at_cut = self._policy.states(ids[None], positions[None], layout)
        return at_cut[0], self._policy.logits(self._policy.hidden(at_cut, positions[None], layout, rows))


def parts_of(lengths: Sequence[int], capacity: int) -> list[range]:
    """Ranges of consecutive sequences with at most `capacity` tokens in all, or one sequence."""
    parts: list[range] = []
    tokens = 0
    for i, length in enumerate(lengths):
        if not parts or tokens + length > capacity:
            parts.append(range(i, i))
            tokens = 0
        parts[-1] = range(parts[-1].start, i + 1)
        tokens += length
    return parts


def num_shared_tokens(prompts: Sequence[Sequence[int]]) -> int:
    """The length of the prompts' shared prefix. Each keeps a token of its own, and a single prompt shares none."""
    if len(prompts) == 1:
        return 0
    first, last = min(prompts, key=list), max(prompts, key=list)  # a prefix of these two is one of all between them
    differs = (i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return min(next(differs, len(first)), min(map(len, prompts)) - 1)
