"""Ranking and search beside what people use today: python benches/peers/ranking.py --size paper --threads 2.

Needs torch and faiss-cpu. The embeddings are random unit vectors and each user's target a random item, which leaves
more items in doubt than a trained model does, whose targets rank high.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from pathlib import Path

import numpy as np

from langptune_rs import ItemIndex

sys.path.insert(0, str(Path(__file__).parent))
from side_by_side import time_side_by_side

SIZES = {"paper": (1_392, 10_533, 512), "large": (256, 1_000_000, 384)}
"""Users, items, dimensions."""
K = 20


@functools.cache
def problem(size: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Users and items as unit rows, and one target for each user."""
    num_users, num_items, dim = SIZES[size]
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, dim), dtype=np.float32) for n in (num_users, num_items))
    for rows in (users, items):
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return users, items, rng.integers(0, num_items, num_users)


def argsort(size):
    users, items, targets = problem(size)
    return lambda: 1 + np.argmax(np.argsort(-(users @ items.T), axis=1) == targets[:, None], axis=1)


def torch_argsort(size):
    import torch

    users, items, targets = map(torch.from_numpy, problem(size))

    def work():
        order = (users @ items.T).argsort(dim=1, descending=True)
        return 1 + (order == targets[:, None]).int().argmax(dim=1).numpy()

    return work


def torch_count(size):
    import torch

    users, items, targets = map(torch.from_numpy, problem(size))

    def work():
        scores = users @ items.T
        return (1 + (scores > scores.gather(1, targets[:, None])).sum(1)).numpy()

    return work


def torch_top_k(size):
    import torch

    users, items = map(torch.from_numpy, problem(size)[:2])
    return lambda: (users @ items.T).topk(K, dim=1).indices.numpy()


def numpy_top_k(size):
    users, items, _ = problem(size)

    def work():
        scores = users @ items.T
        part = np.argpartition(scores, -K, axis=1)[:, -K:]
        order = np.argsort(-np.take_along_axis(scores, part, axis=1), axis=1)
        return np.take_along_axis(part, order, axis=1)

    return work


def faiss_top_k(size):
    import faiss

    users, items, _ = problem(size)
    index = faiss.IndexFlatIP(items.shape[1])
    index.add(items)
    return lambda: index.search(users, K)[1]


def numpy_matmul(size):
    users, items, _ = problem(size)

    def work():
        users @ items.T

    return work


def torch_bf16_matmul(size):
    import torch

    users, items = (torch.from_numpy(rows).bfloat16() for rows in problem(size)[:2])

    def work():
        users @ items.T

    return work


def rank(size):
    users, items, targets = problem(size)
    index = ItemIndex(items)
    return lambda: index.rank(users, targets)


def search(size):
    users, items, _ = problem(size)
    index = ItemIndex(items)
    return lambda: index.search(users, K)[1]


RANKERS = {
    "numpy: full argsort": argsort,
    "torch: full argsort": torch_argsort,
    "torch: matmul, count above the target": torch_count,
}
SEARCHERS = {
    "torch: matmul, topk 20": torch_top_k,
    "numpy: matmul, argpartition 20": numpy_top_k,
    "faiss: IndexFlatIP.search 20": faiss_top_k,
}
BOUNDS = {"numpy: float32 matmul alone": numpy_matmul, "torch: bfloat16 matmul alone": torch_bf16_matmul}


def contenders(size: str) -> dict[str, tuple[functools.partial, dict[str, str]]]:
    """The peers, and ours once for each kernel; at the large size those that memory has room for beside each other."""
    peers, kernels = {**RANKERS, **SEARCHERS, **BOUNDS}, ItemIndex.kernels()
    if size == "large":
        peers = {name: work for name, work in peers.items() if "argsort" not in name and "bfloat16" not in name}
        kernels = kernels[:1]
    ours = {"rank": rank, f"search {K}": search}
    return {name: (functools.partial(work, size), {}) for name, work in peers.items()} | {
        f"langptune: {name}, {kernel}": (functools.partial(work, size), {"LANGPTUNE_KERNEL": kernel})
        for kernel in kernels
        for name, work in ours.items()
    }


def run(size: str, threads: int) -> dict[str, float]:
    """Median seconds of every contender."""
    return time_side_by_side(contenders(size), functools.partial(check, size, {}), threads=threads)


def check(size: str, expected: dict, name: str, result: np.ndarray | None) -> None:
    """Every rank within those that float32 rounding allows, every top-k score equal to float64's to that rounding."""
    if result is None:
        return
    users, items, targets = problem(size)
    chosen = np.arange(len(users)) if size == "paper" else np.arange(16)
    if not expected:
        parts = np.array_split(items, 32)
        scores = np.hstack([users[chosen].astype(np.float64) @ part.T.astype(np.float64) for part in parts])
        own = scores[np.arange(len(chosen)), targets[chosen]][:, None]
        expected["ranks"] = [1 + (scores > own + sign * 1e-6).sum(1) for sign in (1, -1)]
        expected["top"] = -np.sort(np.partition(-scores, K, axis=1)[:, :K], axis=1)
    if result.ndim == 1:
        low, high = expected["ranks"]
        assert np.all((low <= result[chosen]) & (result[chosen] <= high)), name
    else:
        found = np.einsum("ud,ukd->uk", users[chosen].astype(np.float64), items[result[chosen]].astype(np.float64))
        assert np.abs(found - expected["top"]).max() < 1e-6, name


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SIZES, default="paper")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.size, arguments.threads), indent=2))
