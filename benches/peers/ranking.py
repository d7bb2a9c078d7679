"""Ranking and search compared with other libraries: python benches/peers/ranking.py --size paper --threads 2.

Needs torch, faiss-cpu and cargo, since the program benches/peers/one_kernel.rs runs a single kernel over the whole
problem. The embeddings are random unit vectors and each user's target is a random item. A trained model, whose targets
rank high, leaves fewer items in doubt.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langptune_rs import ItemIndex

sys.path.insert(0, str(Path(__file__).parents[1]))
from peers.side_by_side import ROUNDS, Prepare, Work, argument_parser, time_side_by_side

ROOT = Path(__file__).parents[2]
SIZES = {"paper": (1_392, 10_533, 512), "large": (256, 1_000_000, 384), "small": (96, 3_000, 64)}
"""Users, items and dimensions; the small size is for trying this script."""
K = 20
TOLERANCES = {"float32": 1e-6, "16 bits": 4e-4}
"""How far a score of unit vectors may be from that in float64."""


@functools.cache
def problem(size: str) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]:
    """Users and items as unit rows, and one target for each user."""
    num_users, num_items, dim = SIZES[size]
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, dim), dtype=np.float32) for n in (num_users, num_items))
    for rows in (users, items):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return users, items, rng.integers(0, num_items, num_users)


def argsort(size: str) -> Work:
    """Ranks by sorting all scores in numpy."""
    users, items, targets = problem(size)
    return lambda: 1 + np.argmax(np.argsort(-(users @ items.T), axis=1) == targets[:, None], axis=1)


def torch_argsort(size: str) -> Work:
    """Ranks by sorting all scores in torch."""
    import torch

    users, items, targets = map(torch.from_numpy, problem(size))

    def work() -> NDArray[np.int64]:
        order = (users @ items.T).argsort(dim=1, descending=True)
        return 1 + (order == targets[:, None]).int().argmax(dim=1).numpy()

    return work


def torch_count(size: str) -> Work:
    """Ranks by counting the scores above the target's in torch."""
    import torch

    users, items, targets = map(torch.from_numpy, problem(size))

    def work() -> NDArray[np.int64]:
        scores = users @ items.T
        return (1 + (scores > scores.gather(1, targets[:, None])).sum(1)).numpy()

    return work


def torch_top_k(size: str) -> Work:
    """The best K items by torch's `topk`."""
    import torch

    users, items = map(torch.from_numpy, problem(size)[:2])
    return lambda: (users @ items.T).topk(K, dim=1).indices.numpy()


def numpy_top_k(size: str) -> Work:
    """The best K items by numpy's `argpartition`."""
    users, items, _ = problem(size)

    def work() -> NDArray[np.int64]:
        scores = users @ items.T
        part = np.argpartition(scores, -K, axis=1)[:, -K:]
        order = np.argsort(-np.take_along_axis(scores, part, axis=1), axis=1)
        return np.take_along_axis(part, order, axis=1)

    return work


def faiss_top_k(size: str) -> Work:
    """The best K items by faiss's exact index."""
    import faiss

    users, items, _ = problem(size)
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    del items
    problem.cache_clear()  # it keeps a copy
    return lambda: index.search(users, K)[1]


def numpy_matmul(size: str) -> Work:
    """Only the float32 products, in numpy."""
    users, items, _ = problem(size)

    def work() -> None:
        users @ items.T

    return work


def torch_bf16_matmul(size: str) -> Work:
    """Only the bfloat16 products, in torch."""
    import torch

    users, items = (torch.from_numpy(rows).bfloat16() for rows in problem(size)[:2])

    def work() -> None:
        users @ items.T

    return work


def rank(size: str) -> Work:
    """Ranks by this package."""
    users, items, targets = problem(size)
    index = ItemIndex(items)
    return lambda: index.rank(users, targets)


def search(size: str) -> Work:
    """The best K items by this package."""
    users, items, _ = problem(size)
    index = ItemIndex(items)
    return lambda: index.search(users, K)[1]


def one_kernel(size: str, program: str, kind: str) -> Work:
    """The program of benches/peers/one_kernel.rs, in its own process that this one waits for."""
    arrays: Sequence[NDArray[Any]] = problem(size)
    command = [program, kind, *map(str, SIZES[size])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    to_program, from_program = process.stdin, process.stdout
    for array in arrays:
        to_program.write(array.data.cast("B"))
    num_users = len(arrays[0])
    del arrays, array
    problem.cache_clear()  # it keeps what it was given

    def work() -> NDArray[np.int64]:
        to_program.write(b"\n")
        to_program.flush()
        return np.frombuffer(from_program.read(8 * num_users), dtype=np.int64)

    return work


def built(example: str) -> str:
    """The path of an example program of the core, built first."""
    command = ["cargo", "build", "--release", "--locked", "--quiet", "--package", "langptune-core"]
    command += ["--example", example, "--message-format", "json"]
    lines = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    paths: list[str] = [path for line in lines if (path := json.loads(line).get("executable"))]
    return paths[0]


RANKERS: dict[str, Callable[[str], Work]] = {
    "numpy: full argsort": argsort,
    "torch: full argsort": torch_argsort,
    "torch: matmul, count above the target": torch_count,
}
SEARCHERS: dict[str, Callable[[str], Work]] = {
    "torch: matmul, topk 20": torch_top_k,
    "numpy: matmul, argpartition 20": numpy_top_k,
    "faiss: IndexFlatIP.search 20": faiss_top_k,
}
BOUNDS: dict[str, Callable[[str], Work]] = {
    "numpy: float32 matmul alone": numpy_matmul,
    "torch: bfloat16 matmul alone": torch_bf16_matmul,
}


Contenders = dict[str, tuple[Prepare, dict[str, str]]]


def contenders(size: str) -> list[Contenders]:
    """Groups whose members take turns: the peers, and this package once for each kernel.

    At the large size all kernels except the fastest form a second group, since memory has no room for all together.
    """
    peers, kernels, program = {**RANKERS, **SEARCHERS, **BOUNDS}, ItemIndex.kernels(), built("one_kernel")
    if size == "large":
        peers = {name: work for name, work in peers.items() if "argsort" not in name and "bfloat16" not in name}

    def with_kernel(name: str, work: Callable[..., Work], kernel: str, *arguments: str) -> Contenders:
        return {f"{name}, {kernel}": (functools.partial(work, size, *arguments), {"LANGPTUNE_KERNEL": kernel})}

    def whole(kernel: str) -> Contenders:
        return {
            **with_kernel("langptune: rank", rank, kernel),
            **with_kernel(f"langptune: search {K}", search, kernel),
        }

    first: Contenders = {name: (functools.partial(work, size), {}) for name, work in peers.items()}
    first |= whole(kernels[0]) | with_kernel("approximate kernel alone", one_kernel, kernels[0], program, "sixteen")
    others: Contenders = {}
    for kernel in kernels[1:]:
        others |= whole(kernel)
    others |= with_kernel("float32 kernel alone", one_kernel, "portable", program, "exact")
    return [first, others] if size == "large" else [first | others]


def run(size: str, threads: int, rounds: int = ROUNDS) -> dict[str, float]:
    """The median seconds of every contender."""
    checked = functools.partial(check, size, {})
    seconds: dict[str, float] = {}
    for group in contenders(size):
        seconds |= time_side_by_side(group, checked, threads=threads, rounds=rounds)
    return seconds


def in_float64(size: str) -> dict[str, Any]:
    """The best K scores of every user, and the best and the worst rank of its target for each tolerance."""
    rows, items, targets = problem(size)
    users = rows.astype(np.float64)
    own = np.einsum("ud,ud->u", users, items[targets].astype(np.float64))[:, None]
    ends: dict[tuple[str, int], Any] = {(name, sign): 0 for name in TOLERANCES for sign in (1, -1)}
    top = np.full((len(users), K), -np.inf)
    for part in np.array_split(items, max(1, len(items) // 16_384)):
        scores = users @ part.T.astype(np.float64)
        for name, sign in ends:
            ends[name, sign] = ends[name, sign] + (scores > own + sign * TOLERANCES[name]).sum(axis=1)
        top = -np.partition(-np.hstack([top, scores]), K, axis=1)[:, :K]
    ranks = {name: (1 + ends[name, 1], 1 + ends[name, -1]) for name in TOLERANCES}
    return {"top": -np.sort(-top, axis=1), **ranks}


def check(size: str, expected: dict[str, Any], name: str, result: NDArray[np.int64] | None) -> None:
    """Assert that ranks are within those that rounding allows, and top-k scores near those in float64."""
    if result is None:
        return
    if not expected:
        expected |= in_float64(size)
    if result.ndim == 1:
        low, high = expected["16 bits" if "approximate" in name else "float32"]
        assert np.all((low <= result) & (result <= high)), name
    else:
        users, items, _ = problem(size)
        for user, found, top in zip(users, result, expected["top"], strict=True):
            assert len(set(found)) == K, name
            assert np.abs(items[found].astype(np.float64) @ user - top).max() < TOLERANCES["float32"], name


if __name__ == "__main__":
    parser = argument_parser(__doc__)
    parser.add_argument("--size", choices=SIZES, default="paper")
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.size, arguments.threads, arguments.rounds), indent=2))
