"""How far one machine goes: python benches/capacity.py --items 1000000 --dim 384 --threads 2.

Prints users a minute for `rank` and for `search`, the bytes of the items and of all other memory, and the seconds to
build the index. The embeddings are random unit vectors and each user's target is a random item. A trained model, whose
targets rank high, leaves fewer items in doubt. `--folder` keeps the items in a file there and maps it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

K = 20
ROUNDS = 3


def unit_rows(num_rows: int, dim: int, out: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """`out` (num_rows, dim), filled with random unit vectors in parts."""
    rng = np.random.default_rng(seed)
    for start in range(0, num_rows, 65_536):
        part = rng.standard_normal((min(65_536, num_rows - start), dim), dtype=np.float32)
        out[start : start + len(part)] = part / np.linalg.norm(part, axis=1, keepdims=True)
    return out


def seconds(work: Callable[[], object]) -> float:
    """How long `work` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def anonymous_bytes() -> int:
    """Memory of this process that is not backed by a file; 0 if the system does not say."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def measure(num_items: int, dim: int, num_users: int, keep_rounded: bool, folder: Path | None) -> dict[str, object]:
    """The numbers that the script prints."""
    from langptune_rs import ItemIndex

    if folder is None:
        items = unit_rows(num_items, dim, np.empty((num_items, dim), dtype=np.float32), seed=0)
    else:
        path = folder / f"items-{num_items}x{dim}.npy"
        mapped = np.lib.format.open_memmap(path, "w+", np.float32, (num_items, dim))
        unit_rows(num_items, dim, mapped, seed=0)
        mapped.flush()
        items = np.load(path, mmap_mode="r")
    users = unit_rows(num_users, dim, np.empty((num_users, dim), dtype=np.float32), seed=1)
    targets = np.random.default_rng(2).integers(0, num_items, num_users)
    before = anonymous_bytes()
    start = time.perf_counter()
    index = ItemIndex(items, keep_rounded=keep_rounded)
    built = time.perf_counter() - start
    works: dict[str, Callable[[], object]] = {
        "rank": lambda: index.rank(users, targets),
        "search": lambda: index.search(users, K),
    }
    medians = {name: statistics.median(seconds(work) for _ in range(ROUNDS)) for name, work in works.items()}
    return {
        "items": num_items,
        "dim": dim,
        "users": num_users,
        "threads": int(os.environ["RAYON_NUM_THREADS"]),
        "kernel": index.kernel,
        "keep_rounded": keep_rounded,
        "items_bytes": items.nbytes,
        "bytes_beside": anonymous_bytes() - before,
        "build_seconds": round(built, 2),
        **{f"{name}_users_per_minute": round(60 * num_users / median) for name, median in medians.items()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--users", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--no-copy", action="store_true", help="measure keep_rounded=False")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    os.environ["RAYON_NUM_THREADS"] = str(arguments.threads)
    print(
        json.dumps(
            measure(arguments.items, arguments.dim, arguments.users, not arguments.no_copy, arguments.folder), indent=2
        )
    )
