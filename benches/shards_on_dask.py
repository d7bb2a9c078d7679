"""Ranks and searches a catalog in shards on disk with Dask: python benches/shards_on_dask.py FOLDER --workers 4.

FOLDER holds the catalog as `items-*.npy`, float32 (n, dim) each, in the order of their names; `users.npy`, float32
(n_users, dim); `targets.npy` and `histories.npy`, items (n_users,) and (n_users, h). What is found is written beside
them: `ranks.npy` (n_users,), `scores.npy` and `ids.npy` (n_users, 20), to the bits of a single index.

Every worker maps its shards into memory and keeps them in 16 bits; users go to the shards, and numbers come back. With
`--scheduler ADDRESS` the workers are those of a cluster that sees FOLDER. A worker that dies is made up for by others
that open its shards. Needs dask and distributed.
"""

from __future__ import annotations

import argparse
import os
from itertools import accumulate
from pathlib import Path

import dask
import numpy as np
from dask.distributed import Client, LocalCluster

import langptune_rs
from langptune_rs import ShardedIndex, ShardOnDisk

K = 20
USERS = 4096
"""What one message carries: some megabytes."""


def open_catalog(client: Client, paths: list[Path]) -> ShardedIndex:
    """The shards as futures, spread over the workers; a task runs where its shard is."""
    sizes = [len(np.load(path, mmap_mode="r")) for path in paths]
    first_items = accumulate(sizes[:-1], initial=0)
    shards = [
        client.submit(ShardOnDisk, path, first_item=first, pure=False)
        for path, first in zip(paths, first_items, strict=True)
    ]
    return ShardedIndex(shards, map=lambda function, shards: client.gather(client.map(function, shards, pure=False)))


def run(client: Client, folder: Path) -> None:
    catalog = open_catalog(client, sorted(folder.glob("items-*.npy")))
    users, targets, histories = (np.load(folder / f"{name}.npy") for name in ("users", "targets", "histories"))
    ranks, found = [], []
    for start in range(0, len(users), USERS):
        some = slice(start, start + USERS)
        ranks.append(catalog.rank(users[some], targets[some], exclude=histories[some]))
        found.append(catalog.search(users[some], K, exclude=histories[some]))
    scores, ids = map(np.concatenate, zip(*found, strict=True))
    for name, array in {"ranks": np.concatenate(ranks), "scores": scores, "ids": ids}.items():
        np.save(folder / f"{name}.npy", array)
    print(catalog, langptune_rs.evaluate(np.concatenate(ranks), ["ndcg@20"]).mean)


def local_cluster(num_workers: int) -> LocalCluster:
    """Workers on this machine, which share its cores."""
    return LocalCluster(
        n_workers=num_workers,
        threads_per_worker=1,
        env={"RAYON_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_workers))},
        memory_limit=0,  # Dask would count mapped files, which the system drops from memory when it needs some
        dashboard_address=None,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scheduler")
    arguments = parser.parse_args()
    dask.config.set({"distributed.scheduler.work-stealing": False})  # opening a shard takes longer than waiting
    with Client(arguments.scheduler or local_cluster(arguments.workers)) as client:
        run(client, arguments.folder.absolute())
