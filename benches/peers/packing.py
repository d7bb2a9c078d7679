"""Packing and collating compared with TRL: python benches/peers/packing.py --threads 2.

Needs trl and datasets. 100,000 sequences of log-normal length, on average about 300 tokens, are packed into bins of
2,048. TRL's data set is made before the clock starts and packed in one batch, for its best fill. It gets no position
ids, which TRL's collator makes later. The bound reads every token once and writes two numbers for it, in order and on
one thread.

Each process keeps the memory it has freed, as pyarrow's pool does for TRL. On a virtual machine that returns freed
memory to its host, allocating hundreds of megabytes again would cost more than all the rest.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langptune_rs import PackedBatch, pack_sequences

sys.path.insert(0, str(Path(__file__).parents[1]))
from peers.side_by_side import ROUNDS, Work, argument_parser, time_side_by_side

NUM_SEQUENCES = 100_000
CAPACITY = 2048
DTYPES = {"int32": np.int32, "int64": np.int64}
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(2**32), "MALLOC_TRIM_THRESHOLD_": str(2**33)}


@functools.cache
def problem(dtype: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """The lengths, and the tokens of all sequences: distinct numbers, so that a check can tell them apart."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(300) - 0.32, 0.8, NUM_SEQUENCES), 1, CAPACITY).astype(np.int64)
    return lengths, np.arange(lengths.sum(), dtype=DTYPES[dtype])


def trl_bfd(dtype: str) -> Work:
    """TRL's best-fit-decreasing packing."""
    import pyarrow
    from datasets import Dataset, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    lengths, tokens = problem(dtype)
    offsets = np.append(0, np.cumsum(lengths)).astype(np.int32)
    rows = pyarrow.ListArray.from_arrays(pyarrow.array(offsets), pyarrow.array(tokens))
    dataset = Dataset(pyarrow.table({"input_ids": rows}))
    return lambda: pack_dataset(dataset, CAPACITY, "bfd", map_kwargs={"batch_size": None})


def only_bins(dtype: str) -> Work:
    """This package's packing without collating."""
    lengths, _ = problem(dtype)

    def work() -> None:
        pack_sequences(lengths, CAPACITY)

    return work


def bins_and_tokens(dtype: str) -> Work:
    """This package's packing and collating."""
    lengths, tokens = problem(dtype)
    return lambda: pack_sequences(lengths, CAPACITY).collate(tokens)


def copy_and_fill(dtype: str) -> Work:
    """The bound: copy all tokens and fill as many numbers."""
    _, tokens = problem(dtype)

    def work() -> None:
        tokens.copy()
        np.full_like(tokens, 1)

    return work


CONTENDERS: dict[str, Callable[[str], Work]] = {
    "trl: pack_dataset bfd": trl_bfd,
    "langptune: pack_sequences, collate": bins_and_tokens,
    "langptune: pack_sequences alone": only_bins,
    "numpy: copy and fill alone": copy_and_fill,
}


def run(dtype: str, threads: int, rounds: int = ROUNDS) -> dict[str, float]:
    """The median seconds of every contender."""
    contenders = {name: (functools.partial(work, dtype), KEEP_MEMORY) for name, work in CONTENDERS.items()}
    return time_side_by_side(contenders, functools.partial(check, dtype, {}), threads=threads, rounds=rounds)


def check(dtype: str, fills: dict[str, float], name: str, result: Any) -> None:
    """Assert that every token is there once, sequences are whole, and there are no more bins than TRL needs."""
    if result is None:
        return
    lengths, tokens = problem(dtype)
    if isinstance(result, PackedBatch):
        fills[name] = result.packing.fill
        order = result.packing.bins.values
        packed, sizes, positions = result.input_ids.values, lengths[order], result.position_ids.values
        assert np.array_equal(packed - positions, np.repeat(np.cumsum(lengths)[order] - sizes, sizes)), name
        assert result.packing.fill >= max(fills.values()), name
    else:
        fills[name] = len(tokens) / (len(result) * CAPACITY)
        packed = np.concatenate(result.with_format("numpy")["input_ids"][:])
    assert np.array_equal(np.sort(packed), tokens), name


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--dtype", choices=DTYPES, default="int32")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.dtype, arguments.threads, arguments.rounds), indent=2))
