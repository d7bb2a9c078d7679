"""Hard cases of `rank`: items that approximate scores cannot tell apart, long exclusions, many targets.

python benches/hard_cases.py --threads 1. Prints processor time, the least of several interleaved rounds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

NUM_USERS = 96
"""So few that an index without a copy scores them exactly. That is the baseline of an index that filters first."""
ALIKE = (
    (50_000, 32, (0.0001, 0.0002, 0.0005, 0.0008, 0.001, 0.002, 0.01)),
    (50_000, 64, (0.0002, 0.0004, 0.0006, 0.001, 0.002, 0.003)),
    (50_000, 128, (0.0004, 0.0008, 0.0012, 0.002, 0.004, 0.006)),
    (500, 512, (0.0001, 0.001, 0.002, 0.01, 0.02)),
    (10_533, 512, (0.0005, 0.001, 0.003, 0.01, 0.02)),
)
"""Items, dimensions, and how far the items spread about one vector of norm sqrt(dim). Small spreads are hard for 16-bit
integers."""


def least_times(
    *works: Callable[[], object], rounds: int = 15, clock: Callable[[], float] = time.process_time
) -> list[float]:
    """The least seconds of each of the `works` by a clock, that of the processor unless told otherwise."""
    least = [float("inf")] * len(works)
    for _ in range(rounds):
        for i, work in enumerate(works):
            start = clock()
            work()
            least[i] = min(least[i], clock() - start)
    return least


def main() -> None:
    import numpy as np

    from langptune_rs import ItemIndex

    rng = np.random.default_rng(0)

    def alike(num_items: int, dim: int, spread: float) -> None:
        users = rng.standard_normal((NUM_USERS, dim)).astype(np.float32)
        targets, centre = rng.integers(0, num_items, NUM_USERS), rng.standard_normal(dim)
        items = (centre + spread * rng.standard_normal((num_items, dim))).astype(np.float32)
        index, exact = ItemIndex(items), ItemIndex(items, keep_rounded=False)
        ranks = least_times(lambda: index.rank(users, targets), lambda: exact.rank(users, targets))
        searches = least_times(lambda: index.search(users, 20), lambda: exact.search(users, 20))
        for name, (filtered, plain) in {"rank": ranks, "search 20": searches}.items():
            print(f"{name:9} {num_items:6} x {dim:3}, spread {spread:.4f}: {filtered / plain:.2f} of only exact scores")

    def excluded(num_excluded: int) -> None:
        users, items = (rng.standard_normal((n, 512), dtype=np.float32) for n in (500, 10_533))
        index, targets = ItemIndex(items), np.zeros(500, dtype=np.int64)
        exclude = np.stack([1 + rng.permutation(10_532)[:num_excluded] for _ in users])
        works = (
            lambda: index.rank(users, targets, exclude=exclude),
            lambda: index.search(users, 20, exclude=exclude),
        )
        rank, search = least_times(*works, rounds=5)
        print(f"{num_excluded:5} of 10,533 items excluded: rank {1e3 * rank:.0f} ms, search 20 {1e3 * search:.0f} ms")

    def wanted(num_targets: int) -> None:
        users, items = (rng.standard_normal((n, 64), dtype=np.float32) for n in (8, 20_000))
        index, targets = ItemIndex(items), np.stack([rng.permutation(20_000)[:num_targets] for _ in users])
        works = (lambda: index.rank(users, targets), lambda: index.search(users, 20_000))
        rank, search = least_times(*works, rounds=5)
        print(f"{num_targets:5} targets a user: rank {1e3 * rank:.1f} ms, search for all {1e3 * search:.1f} ms")

    for num_items, dim, spreads in ALIKE:
        for spread in spreads:
            alike(num_items, dim, spread)
    for num_excluded in (0, 100, 9_000):
        excluded(num_excluded)
    for num_targets in (1, 32, 128, 256, 1_000, 5_000):
        wanted(num_targets)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    os.environ["RAYON_NUM_THREADS"] = str(parser.parse_args().threads)
    main()
