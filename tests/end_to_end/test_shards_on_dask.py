"""The example that ranks a catalog in shards on disk, on several worker processes of this machine."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from langptune_rs import ItemIndex

SCRIPT = Path(__file__).parents[2] / "benches" / "shards_on_dask.py"

LOSE_A_WORKER = """
import os, signal, sys
from pathlib import Path
import numpy as np
from dask.distributed import Client
from shards_on_dask import local_cluster, open_catalog

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    users, targets = np.load(folder / "users.npy"), np.load(folder / "targets.npy")
    with local_cluster(3) as cluster, Client(cluster) as client:
        catalog = open_catalog(client, sorted(folder.glob("items-*.npy")))
        before = catalog.rank(users, targets)
        os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)
        assert np.array_equal(catalog.rank(users, targets), before)
"""


@pytest.fixture
def folder(tmp_path):
    """5,000 users, and 3,000 items in five shards, some of them the same as others."""
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 24), dtype=np.float32) for n in (5000, 3000))
    items[2500:] = items[:500]
    targets = rng.integers(0, 3000, len(users))
    histories = (targets[:, None] + np.arange(1, 5)) % 3000
    for number, shard in enumerate(np.split(items, [700, 701, 1500, 2900])):
        np.save(tmp_path / f"items-{number}.npy", shard)
    for name, array in {"users": users, "targets": targets, "histories": histories}.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path


def run(*command):
    paths = os.pathsep.join([str(SCRIPT.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, *command], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


def test_workers_find_the_bits_of_one_index(folder):
    done = run("-W", "error::UserWarning", SCRIPT, folder, "--workers", "3")
    assert done.stderr == ""
    assert "ShardedIndex(3000 items in 5 shards)" in done.stdout
    names = ("users", "targets", "histories", "ranks", "scores", "ids")
    users, targets, histories, ranks, scores, ids = (np.load(folder / f"{name}.npy") for name in names)
    index = ItemIndex(np.concatenate([np.load(path) for path in sorted(folder.glob("items-*.npy"))]))
    np.testing.assert_array_equal(ranks, index.rank(users, targets, exclude=histories))
    expected = index.search(users, 20, exclude=histories)
    assert scores.tobytes() == expected[0].tobytes()
    np.testing.assert_array_equal(ids, expected[1])


def test_a_worker_that_dies_is_made_up_for(folder):
    script = folder / "lose_a_worker.py"
    script.write_text(LOSE_A_WORKER)
    run(script, folder)
