"""Packing token sequences into bins of one capacity: micro-batches without padding, as many on every rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from langptune_rs import _core
from langptune_rs.arrays import INTEGERS, NUMBERS, Ragged, check_whole, flat_row
from langptune_rs.errors import InputError


@dataclass(frozen=True, eq=False)
class Packing:
    """Which sequences share a bin.

    >>> packing = pack_sequences([6, 3, 7], capacity=10)
    >>> len(packing), packing.fill
    (2, 0.8)

    Attributes:
        bins: rows of sequence indexes. Every sequence is in exactly one bin, on one rank. Indexes increase within a
            bin, except that sequences which stay together follow the first of them.
        lengths: int64 (n_sequences,), tokens of each sequence, or of each piece when longer sequences were split.
        capacity: tokens that a bin holds.
        groups: int64 (n_sequences,), equal for sequences that stay together; None if none have to.
        prefixes: int64 (n_sequences,), the sequence that each one continues, or -1; None if none does.
        sources: int64 (n_sequences,), the passed sequence that each one is a piece of; None without a split.
    """

    bins: Ragged
    lengths: NDArray[np.int64]
    capacity: int
    groups: NDArray[np.int64] | None = None
    prefixes: NDArray[np.int64] | None = None
    sources: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        """Number of bins."""
        return len(self.bins)

    @property
    def fill(self) -> float:
        """Share of the bins' capacity that holds tokens; 1 without bins."""
        num_tokens = self.lengths[self.bins.values].sum(dtype=np.float64)
        return float(num_tokens / (len(self) * self.capacity)) if len(self) else 1.0

    def balance(self, num_ranks: int, costs: ArrayLike | None = None) -> list[Packing]:
        """Deals the bins out to ranks: the same number to each, at sums of cost as equal as can be found.

        Each rank gets `ceil(len(self) / num_ranks)` bins. If the number of bins is no multiple of `num_ranks`, the
        costliest bins are divided in two until it is. Bins are dealt out by the differencing method of Karmarkar and
        Karp (1982), in its form for parts of equal size (Michiels, Korst, Aarts and van Leeuwen, 2003). Every rank that
        calls this with the same arguments gets the same answer.

        >>> ranks = pack_sequences([9, 8, 7, 6], capacity=10).balance(num_ranks=2)
        >>> [[row.tolist() for row in rank.bins] for rank in ranks]
        [[[0], [3]], [[1], [2]]]

        Args:
            num_ranks: at least 1.
            costs: (n_sequences,), finite and at least 0; a bin costs the sum of its sequences. The default is the
                lengths, which is right while attention is a small part. For a decoder of width h with 12 h^2 weights a
                layer, `lengths + lengths**2 / (12 * h)` is proportional to its operations, causal attention included.

        Returns:
            One packing for each rank, with its bins from the costliest down, so that the ranks work on bins of similar
            cost at the same time. Each has the lengths of all sequences. The first rank has the largest sum.

        Raises:
            InputError: names the first sequence whose cost is negative or not finite; also for fewer sequences or
                groups than the bins that are needed.
        """
        num_ranks = check_whole(num_ranks, "num_ranks", 1)
        costs = self.lengths if costs is None else flat_row(costs, "costs", NUMBERS)
        bins = (self.bins.offsets, self.bins.values)
        dealt = Ragged(
            *_core.balance(bins, len(self.lengths), self.groups, self.prefixes, costs.astype(np.float64), num_ranks)
        )
        num_bins = len(dealt) // num_ranks
        return [replace(self, bins=_rows(dealt, rank * num_bins, (rank + 1) * num_bins)) for rank in range(num_ranks)]

    def collate(self, tokens: NDArray[np.integer] | Ragged) -> PackedBatch:
        """The tokens in the order of the bins, with positions and boundaries; copies every token once, in parallel.

        >>> packing = pack_sequences([2, 3, 1], capacity=4)
        >>> for batch in packing.collate(np.array([10, 11, 20, 21, 22, 30])):
        ...     print(batch.sequences, batch.input_ids, batch.position_ids, batch.cu_seqlens)
        [1 2] [20 21 22 30] [0 1 2 0] [0 3 4]
        [0] [10 11] [0 1] [0 2]

        Args:
            tokens: int32 or int64, all sequences one after the other in the order of `lengths`, or `Ragged` with one
                row for each sequence. A sequence that was split is passed whole.

        Raises:
            InputError: for another dtype or shape, for more or fewer tokens than the lengths say, and for a bin with
                more tokens than int32 can count.
        """
        flat = self._flat(tokens)
        bins = (self.bins.offsets, self.bins.values)
        input_ids, position_ids, offsets, cu_seqlens = _core.collate(bins, self.lengths, self.prefixes, flat)
        return PackedBatch(
            packing=self,
            input_ids=Ragged(offsets, input_ids),
            position_ids=Ragged(offsets, position_ids),
            cu_seqlens=Ragged(self.bins.offsets + np.arange(len(self) + 1), cu_seqlens),
        )

    def _flat(self, tokens: object) -> NDArray[np.integer]:
        if isinstance(tokens, Ragged):
            lengths = self.lengths
            if self.sources is not None:
                lengths = np.add.reduceat(lengths, np.flatnonzero(np.diff(self.sources, prepend=-1)))
            if not np.array_equal(np.diff(tokens.offsets), lengths):
                raise InputError(
                    f"tokens has {len(tokens)} rows that are not as long as the lengths say: pass the sequences that "
                    "were packed, in their order"
                )
            tokens = tokens.values
        if not isinstance(tokens, np.ndarray) or tokens.ndim != 1 or tokens.dtype not in (np.int32, np.int64):
            what = f"{tokens.dtype} {tokens.shape}" if isinstance(tokens, np.ndarray) else type(tokens).__name__
            raise InputError(
                f"tokens is {what}: pass one flat array of int32 or int64, such as np.concatenate(sequences), or Ragged"
            )
        if not (tokens.flags.c_contiguous and tokens.flags.aligned):
            raise InputError(
                "tokens is not contiguous and large arrays are not copied silently; pass np.ascontiguousarray(tokens)"
            )
        return tokens


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Collated bins. Holds the arrays of all bins, row by row; iterates over micro-batches, one for each bin.

    >>> batches = pack_sequences([2, 3], capacity=4).collate(np.array([10, 11, 20, 21, 22]))
    >>> batches.input_ids.offsets.tolist(), batches.input_ids.values.tolist()
    ([0, 3, 5], [20, 21, 22, 10, 11])

    Attributes:
        packing: what was collated.
        input_ids: rows of tokens, in the dtype they were passed in.
        position_ids: rows of positions in the same dtype, from 0 in each sequence, or from the end of its prefix.
        cu_seqlens: rows of int32, where each sequence starts within its bin, and then the end of the last one.
    """

    packing: Packing
    input_ids: Ragged
    position_ids: Ragged
    cu_seqlens: Ragged

    def __len__(self) -> int:
        """Number of bins."""
        return len(self.packing)

    def __getitem__(self, bin: int) -> MicroBatch:
        sequences = self.packing.bins[bin]
        return MicroBatch(
            input_ids=self.input_ids[bin],
            position_ids=self.position_ids[bin],
            cu_seqlens=self.cu_seqlens[bin],
            sequences=sequences,
            prefixes=_prefixes_within(sequences, self.packing.prefixes),
        )

    def __iter__(self) -> Iterator[MicroBatch]:
        return (self[bin] for bin in range(len(self)))


@dataclass(frozen=True, eq=False)
class MicroBatch:
    """One bin: s sequences of t tokens in all, without padding, for one row of a model's batch.

    Variable-length attention takes `cu_seqlens` and `max_seqlen` as they are. Where `prefixes` are not all -1, that is
    not enough: a sequence also sees the one it continues (see `attention_mask`).

    >>> packing = pack_sequences([2, 1, 1], capacity=4, prefixes=[-1, 0, 0])  # a prompt and two profiles
    >>> (batch,) = packing.collate(np.array([10, 11, 20, 30]))
    >>> batch.position_ids.tolist(), batch.prefixes.tolist(), batch.max_seqlen
    ([0, 1, 2, 2], [-1, 0, 0], 2)
    >>> batch.attention_mask().astype(int)
    array([[1, 0, 0, 0],
           [1, 1, 0, 0],
           [1, 1, 1, 0],
           [1, 1, 0, 1]])

    Attributes:
        input_ids: (t,), a view.
        position_ids: (t,), a view.
        cu_seqlens: int32 (s + 1,): sequence i is `input_ids[cu_seqlens[i]:cu_seqlens[i + 1]]`.
        sequences: int64 (s,), the index of each sequence in the packing, and so of its targets and rewards.
        prefixes: int64 (s,), the place among the s sequences of the one that each continues, or -1.
    """

    input_ids: NDArray[np.integer]
    position_ids: NDArray[np.integer]
    cu_seqlens: NDArray[np.int32]
    sequences: NDArray[np.int64]
    prefixes: NDArray[np.int64]

    @property
    def max_seqlen(self) -> int:
        """Tokens of the longest sequence."""
        return int(np.diff(self.cu_seqlens).max(initial=0))

    @property
    def segment_ids(self) -> NDArray[np.int64]:
        """The place among the s sequences of the one that each token belongs to, int64 (t,)."""
        return np.repeat(np.arange(len(self.sequences)), np.diff(self.cu_seqlens))

    @property
    def predictors(self) -> NDArray[np.int64]:
        """The position that predicts each token, int64 (t,): the token before it, or the last token of its prefix.

        -1 for a first token that follows nothing.
        """
        before = np.arange(-1, len(self.input_ids) - 1)
        lengths = np.diff(self.cu_seqlens)
        last = np.where(lengths > 0, self.cu_seqlens[1:] - 1, -1)
        first = self.cu_seqlens[:-1][lengths > 0]
        before[first] = np.where(self.prefixes >= 0, last[self.prefixes], -1)[lengths > 0]
        return before

    def attention_mask(self) -> NDArray[np.bool_]:
        """Causal mask of queries by keys, bool (t, t): a token sees its own sequence and the one which that continues.

        So a sequence attends as it would behind its own copy of its prefix.
        """
        key = self.segment_ids
        query = key[:, None]
        mask: NDArray[np.bool_] = np.tri(len(key), dtype=bool) & ((key == query) | (key == self.prefixes[query]))
        return mask


def pack_sequences(
    lengths: Sequence[int] | NDArray[np.integer],
    capacity: int,
    *,
    groups: ArrayLike | None = None,
    prefixes: ArrayLike | None = None,
    split: bool = False,
) -> Packing:
    """Packs sequences by best fit decreasing: longest first, each into the fullest bin that still holds it.

    Deterministic: equal lengths go by index, equally full bins by age. No token is dropped, and a sequence is split
    only on request. At most 11/9 of the fewest possible bins plus 4 (Johnson, Demers, Ullman, Garey and Graham, 1974).

    >>> [row.tolist() for row in pack_sequences([6, 3, 7, 4], capacity=10).bins]
    [[1, 2], [0, 3]]

    A rollout of S sessions with G profiles each, where a prompt is read once for all its profiles, on `rank`:

        lengths = np.concatenate([prompt_lengths, profile_lengths])                     # S, then S * G
        prefixes = np.concatenate([np.full(S, -1), np.repeat(np.arange(S), G)])
        packing = langptune_rs.pack_sequences(lengths, 8192, prefixes=prefixes)
        for micro_batch in packing.balance(num_ranks)[rank].collate(tokens):
            micro_batch.input_ids, micro_batch.position_ids, micro_batch.attention_mask()

    Args:
        lengths: (n_sequences,) in tokens.
        capacity: tokens a bin holds, at least 1.
        groups: (n_sequences,) whole numbers. Sequences with the same number share a bin, such as the profiles of a
            session, whose difference is the loss.
        prefixes: (n_sequences,), the earlier sequence that each one continues, or -1. A prefix stands once in a bin,
            before all sequences that continue it, and their positions go on from its end.
        split: cut a sequence longer than the capacity into pieces of the capacity, the last one shorter. Each piece is
            packed as a sequence of its own, with positions from 0; `sources` names the sequence it was cut from.

    Raises:
        InputError: names the first sequence that is longer than the capacity or of negative length, the first group
            that is longer in all, and the first sequence that cannot continue its prefix; also when `groups`,
            `prefixes` and `split` are combined.
    """
    array, sources = flat_row(lengths, "lengths", INTEGERS), None
    capacity = check_whole(capacity, "capacity", 1)
    if (groups is not None) + (prefixes is not None) + bool(split) > 1:
        raise InputError(
            "groups, prefixes and split exclude each other: a prefix and all that continue it stay together already, "
            "and what stays together cannot be split"
        )
    if split:
        array, sources = _core.split_sequences(array, capacity)
    groups = None if groups is None else flat_row(groups, "groups", INTEGERS)
    prefixes = None if prefixes is None else flat_row(prefixes, "prefixes", INTEGERS)
    bins = Ragged(*_core.pack_sequences(array, capacity, groups, prefixes))
    return Packing(bins, array, capacity, groups, prefixes, sources)


def _rows(rows: Ragged, start: int, stop: int) -> Ragged:
    offsets = rows.offsets[start : stop + 1]
    return Ragged(offsets - offsets[0], rows.values[offsets[0] : offsets[-1]])


def _prefixes_within(sequences: NDArray[np.int64], prefixes: NDArray[np.int64] | None) -> NDArray[Any]:
    """For each sequence of a bin, the place in the bin of its prefix (the last one before it that has none), or -1."""
    if prefixes is None:
        return np.full(len(sequences), -1)
    place = np.arange(len(sequences))
    continues = prefixes[sequences] >= 0
    return np.where(continues, np.maximum.accumulate(np.where(continues, 0, place)), -1)
