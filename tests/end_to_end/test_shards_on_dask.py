"""The example that ranks a catalog in shards on disk, on several worker processes of this machine."""

import subprocess
import sys
from pathlib import Path

import numpy as np

from langptune_rs import ItemIndex

SCRIPT = Path(__file__).parents[2] / "benches" / "shards_on_dask.py"


def test_workers_find_the_bits_of_one_index(tmp_path):
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 24), dtype=np.float32) for n in (5000, 3000))
    items[2500:] = items[:500]
    targets = rng.integers(0, 3000, len(users))
    histories = (targets[:, None] + np.arange(1, 5)) % 3000
    for number, shard in enumerate(np.split(items, [700, 701, 1500, 2900])):
        np.save(tmp_path / f"items-{number}.npy", shard)
    for name, array in {"users": users, "targets": targets, "histories": histories}.items():
        np.save(tmp_path / f"{name}.npy", array)
    command = [sys.executable, "-W", "error::UserWarning", SCRIPT, tmp_path, "--workers", "3"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "ShardedIndex(3000 items in 5 shards)" in done.stdout
    index = ItemIndex(items)
    ranks, scores, ids = (np.load(tmp_path / f"{name}.npy") for name in ("ranks", "scores", "ids"))
    np.testing.assert_array_equal(ranks, index.rank(users, targets, exclude=histories))
    expected = index.search(users, 20, exclude=histories)
    assert scores.tobytes() == expected[0].tobytes()
    np.testing.assert_array_equal(ids, expected[1])
