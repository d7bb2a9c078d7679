"""Ranks and searches a catalog in shards on disk with Dask: python benches/shards_on_dask.py FOLDER --workers 4.

FOLDER holds the catalog as `items-*.npy`, float32 (n, dim) each, in the order of their names; `users.npy`, float32
(n_users, dim); `targets.npy` and `histories.npy`, items (n_users,) and (n_users, h). The results are written beside
them: `ranks.npy` (n_users,), `scores.npy` and `ids.npy` (n_users, 20). They equal those of a single index bit for bit.

Every worker maps its shards into memory and keeps them in 16 bits. Users are sent to the shards, and numbers come back.
With `--scheduler ADDRESS` the workers are those of a cluster that sees FOLDER. When a worker dies, others open its
shards. Needs dask and distributed.
"""

from __future__ import annotations

import argparse
import os
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any

import dask
import numpy as np
from dask.distributed import Client, LocalCluster

import langptune_rs
from langptune_rs import ShardedIndex, ShardOnDisk

K = 20
USERS = 4096
"""How many users one message carries: some megabytes."""


def open_catalog(client: Client, paths: list[Path]) -> ShardedIndex:
    """The catalog whose shards are futures, spread over the workers; a task runs where its shard is."""
    sizes = [len(np.load(path, mmap_mode="r")) for path in paths]
    first_items = accumulate(sizes[:-1], initial=0)
    shards = [
        client.submit(ShardOnDisk, path, first_item=first, pure=False)
        for path, first in zip(paths, first_items, strict=True)
    ]
    gather: Any = client.gather  # untyped in distributed
    return ShardedIndex(shards, map=lambda function, shards: gather(client.map(function, shards, pure=False)))


def run(client: Client, folder: Path) -> None:
    """Rank and search all users, and write the results into `folder`."""
    catalog = open_catalog(client, sorted(folder.glob("items-*.npy")))
    users, targets, histories = (np.load(folder / f"{name}.npy") for name in ("users", "targets", "histories"))
    ranks: list[Any] = []
    found: list[tuple[Any, Any]] = []
    for start in range(0, len(users), USERS):
        some = slice(start, start + USERS)
        ranks.append(catalog.rank(users[some], targets[some], exclude=histories[some]))
        found.append(catalog.search(users[some], K, exclude=histories[some]))
    scores, ids = (np.concatenate(parts) for parts in zip(*found, strict=True))
    all_ranks = np.concatenate(ranks)
    for name, array in {"ranks": all_ranks, "scores": scores, "ids": ids}.items():
        np.save(folder / f"{name}.npy", array)
    print(catalog, langptune_rs.evaluate(all_ranks, ["ndcg@20"]).mean)


def local_cluster(num_workers: int) -> LocalCluster:
    """Workers on this machine, which share its cores."""
    cluster: Any = LocalCluster  # untyped in distributed
    made: LocalCluster = cluster(
        n_workers=num_workers,
        threads_per_worker=1,
        env={"RAYON_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // num_workers))},
        memory_limit=0,  # Dask would count mapped files, which the system can drop from memory
        dashboard_address=None,
    )
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scheduler")
    arguments = parser.parse_args()
    dask.config.set({"distributed.scheduler.work-stealing": False})  # opening a shard takes longer than waiting
    connect: Any = Client  # untyped in distributed
    # A client leaves a cluster as it found it: workers that are not closed here complain of the lost scheduler at exit.
    with ExitStack() as opened:
        cluster = arguments.scheduler or opened.enter_context(local_cluster(arguments.workers))
        run(opened.enter_context(connect(cluster)), arguments.folder.absolute())
