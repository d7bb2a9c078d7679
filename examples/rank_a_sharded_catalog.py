"""Rank a catalog that lies in several files: python examples/rank_a_sharded_catalog.py.

Every shard is a file that is mapped into memory. Threads ask the shards here; with an engine such as Dask they lie on
other machines (benches/shards_on_dask.py). Only users and a few numbers for each travel, never items.
"""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from langptune_rs import ItemIndex, ShardedIndex, ShardOnDisk, evaluate

SIZES = [30_000, 50_000, 20_000]
NUM_USERS, DIM = 200, 64


def write_shards(folder: Path, generator: np.random.Generator) -> list[Path]:
    """A catalog in three files, in the order of its items."""
    paths = [folder / f"items-{number}.npy" for number in range(len(SIZES))]
    for path, size in zip(paths, SIZES, strict=True):
        np.save(path, generator.normal(size=(size, DIM)).astype(np.float32))
    return paths


def main() -> None:
    """Prints a metric, the best items of one user, and that a single index finds the same."""
    generator = np.random.default_rng(0)
    with TemporaryDirectory() as folder, ThreadPoolExecutor() as threads:
        paths = write_shards(Path(folder), generator)
        starts = np.cumsum([0, *SIZES[:-1]]).tolist()
        shards = [ShardOnDisk(path, first_item=start) for path, start in zip(paths, starts, strict=True)]
        catalog = ShardedIndex(shards, map=threads.map)

        users = generator.normal(size=(NUM_USERS, DIM)).astype(np.float32)
        targets = generator.integers(0, len(catalog), NUM_USERS)
        histories = (targets[:, None] + np.arange(1, 5)) % len(catalog)
        ranks = catalog.rank(users, targets, exclude=histories)
        scores, ids = catalog.search(users, k=5, exclude=histories)
        print(catalog)
        print(f"NDCG {evaluate(ranks, ['ndcg']).mean['ndcg']:.4f}")
        print("items for the first user:", ids[0].tolist(), "scores:", *(f"{score:.1f}" for score in scores[0]))

        single = ItemIndex(np.concatenate([np.load(path) for path in paths]))
        assert np.array_equal(single.rank(users, targets, exclude=histories), ranks)
        assert np.array_equal(single.search(users, k=5, exclude=histories)[0], scores)
        print("one index finds the same, bit for bit")


if __name__ == "__main__":
    main()
