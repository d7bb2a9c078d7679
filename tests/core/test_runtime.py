"""What the extension does to the process: imports, threads, forks, memory, the GIL."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from langptune_rs import ItemIndex
from langptune_rs.errors import InputError

HEAVY = ("torch", "transformers", "deepspeed", "polars", "pydantic", "pandas", "scipy", "sklearn")

RANK = """
import numpy as np
from langptune_rs import ItemIndex
from langptune_rs.errors import InputError
rng = np.random.default_rng(0)
users, items = (rng.standard_normal((n, 48), dtype=np.float32) for n in (70, 5000))
index = ItemIndex(items)
"""


def run(code: str, *arguments: str, **environment: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_heavy():
    loaded = run("import sys, langptune_rs; print(*sys.modules)").split()
    assert "numpy" in loaded
    assert not set(HEAVY) & set(loaded)


@pytest.mark.alone
def test_importing_the_package_takes_no_time_beyond_numpy():
    code = "import time, numpy; start = time.process_time(); import langptune_rs; print(time.process_time() - start)"
    assert min(float(run(code)) for _ in range(5)) < 0.1


def test_the_number_of_threads_changes_no_bit():
    code = RANK + (
        "import hashlib, langptune_rs\n"
        "scores, ids = index.search(users, 500)\n"
        "ranks = index.rank(users, np.arange(70))\n"
        "interval = langptune_rs.evaluate(ranks, ['ndcg']).confidence_interval('ndcg')\n"
        "print(hashlib.sha256(scores.tobytes() + ids.tobytes() + ranks.tobytes()).hexdigest(), interval)\n"
    )
    assert len({run(code, RAYON_NUM_THREADS=threads) for threads in ("1", "2", "5")}) == 1


def test_the_number_of_threads_changes_no_packed_token():
    code = (
        "import hashlib, numpy as np, langptune_rs\n"
        "lengths = np.random.default_rng(0).integers(0, 500, 2000)\n"
        "tokens = np.arange(lengths.sum())\n"
        "for rank in langptune_rs.pack_sequences(lengths, 2048).balance(3, lengths**2):\n"
        "    batch = rank.collate(tokens)\n"
        "    for rows in (batch.input_ids, batch.position_ids, batch.cu_seqlens):\n"
        "        print(hashlib.sha256(rows.offsets.tobytes() + rows.values.tobytes()).hexdigest())\n"
    )
    assert len({run(code, RAYON_NUM_THREADS=threads) for threads in ("1", "2", "5")}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_ranks():
    code = RANK + (
        "import os\n"
        "expected = index.rank(users, np.arange(70))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    grandchild = os.fork()\n"
        "    same = np.array_equal(index.rank(users, np.arange(70)), expected)\n"
        "    if grandchild:\n"
        "        same = same and os.waitpid(grandchild, 0)[1] == 0\n"
        "    os._exit(0 if same else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert np.array_equal(index.rank(users, np.arange(70)), expected)\n"
    )
    run(code, PYTHONWARNINGS="ignore")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_forked_while_other_threads_rank_ranks_and_searches():
    code = RANK + (
        "import os, threading\n"
        "expected, best = index.rank(users, np.arange(70)), index.search(users, 5)[1]\n"
        "done = threading.Event()\n"
        "def keep_ranking():\n"
        "    while not done.is_set():\n"
        "        index.rank(users, np.arange(70))\n"
        "threads = [threading.Thread(target=keep_ranking) for _ in range(3)]\n"
        "for thread in threads: thread.start()\n"
        "for _ in range(10):\n"
        "    child = os.fork()\n"
        "    if child == 0:\n"
        "        same = np.array_equal(index.rank(users, np.arange(70)), expected)\n"
        "        os._exit(0 if same and np.array_equal(index.search(users, 5)[1], best) else 1)\n"
        "    assert os.waitpid(child, 0)[1] == 0\n"
        "done.set()\n"
        "for thread in threads: thread.join()\n"
    )
    run(code, PYTHONWARNINGS="ignore")


def test_the_matrix_of_scores_is_never_formed():
    code = (
        "import resource, numpy as np, langptune_rs\n"
        "users, items = np.ones((500, 2), dtype=np.float32), np.ones((200_000, 2), dtype=np.float32)\n"
        "index = langptune_rs.ItemIndex(items)\n"
        "index.rank(users[:2], [0, 1])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "index.rank(users, np.zeros(500, dtype=int)); index.search(users, 20)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    pytest.importorskip("resource", reason="this system does not report peak memory")
    assert int(run(code)) * 1024 < 500 * 200_000 * 4 / 4


@pytest.fixture(scope="module")
def items_on_disk(tmp_path_factory):
    """400,000 items of 128 dimensions in a file of 205 MB."""
    path = tmp_path_factory.mktemp("items") / "items.npy"
    rng = np.random.default_rng(0)
    items = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(400_000, 128))
    for start in range(0, len(items), 50_000):
        items[start : start + 50_000] = rng.standard_normal((50_000, 128), dtype=np.float32)
    items.flush()
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not report anonymous memory")
@pytest.mark.parametrize("threads", ["2", "32"])
@pytest.mark.parametrize(("keep_rounded", "copy"), [(True, 400_000 * 2 * 128), (False, 0)])
def test_items_on_disk_take_the_memory_of_their_copy_and_no_more_than_64_mib(
    items_on_disk, keep_rounded, copy, threads
):
    code = (
        "import sys, threading, time\n"
        "import numpy as np\n"
        "from langptune_rs import ItemIndex\n"
        "def anonymous():\n"
        "    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('RssAnon'))\n"
        "users = np.random.default_rng(1).standard_normal((1500, 128), dtype=np.float32)\n"
        "peak, before = 0, anonymous()\n"
        "def watch():\n"
        "    global peak\n"
        "    while True:\n"
        "        peak = max(peak, anonymous())\n"
        "        time.sleep(0.001)\n"
        "threading.Thread(target=watch, daemon=True).start()\n"
        "items = np.load(sys.argv[1], mmap_mode='r')\n"
        f"index = ItemIndex(items, keep_rounded={keep_rounded})\n"
        "index.rank(users, np.arange(1500)); index.search(users, 20)\n"
        "print(1024 * (peak - before))\n"
    )
    assert int(run(code, str(items_on_disk), RAYON_NUM_THREADS=threads)) < copy + 64 * 2**20


def test_a_copy_that_is_not_kept_changes_no_bit():
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 48), dtype=np.float32) for n in (700, 5000))
    kept, not_kept = ItemIndex(items), ItemIndex(items, keep_rounded=False)
    for num_users in (10, 700):
        some, targets = users[:num_users], np.arange(num_users)
        np.testing.assert_array_equal(not_kept.rank(some, targets), kept.rank(some, targets))
        for found, expected in zip(not_kept.search(some, 30), kept.search(some, 30), strict=True):
            assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    "work", [lambda index, users: index.rank(users, np.arange(500)), lambda index, users: index.search(users, 20)]
)
def test_other_threads_run_while_it_works(work):
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 256), dtype=np.float32) for n in (500, 20_000))
    index = ItemIndex(items)
    done = threading.Event()

    def work_twice():
        for _ in range(2):
            work(index, users)
        done.set()

    ticks = 0
    thread = threading.Thread(target=work_twice)
    thread.start()
    while not done.is_set():
        time.sleep(0.001)
        ticks += 1
    thread.join()
    assert ticks > 5


def test_many_threads_rank_at_once():
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 16), dtype=np.float32) for n in (40, 2000))
    index = ItemIndex(items)
    expected = index.rank(users, np.arange(40))
    same = []
    threads = [
        threading.Thread(target=lambda: same.append(np.array_equal(index.rank(users, np.arange(40)), expected)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert same == [True] * 8


def test_the_kernel_changes_no_bit():
    code = RANK + (
        "import hashlib\n"
        "scores, ids = index.search(users, 30, exclude=[[1, 2]] * 70)\n"
        "ranks = index.rank(users, np.arange(70), exclude=[[4000]] * 70)\n"
        "print(index.kernel, hashlib.sha256(scores.tobytes() + ids.tobytes() + ranks.tobytes()).hexdigest())\n"
    )
    kernels = ItemIndex.kernels()
    assert kernels[-1] == "portable"
    printed = [run(code, LANGPTUNE_KERNEL=kernel).split() for kernel in ["", *kernels]]
    assert [kernel for kernel, _ in printed] == [kernels[0], *kernels]
    assert len({bits for _, bits in printed}) == 1


def test_an_unknown_kernel_is_refused(monkeypatch):
    monkeypatch.setenv("LANGPTUNE_KERNEL", "avx1024")
    with pytest.raises(InputError, match=r"LANGPTUNE_KERNEL = \"avx1024\": this CPU runs .*portable; unset"):
        ItemIndex(np.ones((1, 1), dtype=np.float32))


@pytest.mark.parametrize(("dim", "spread"), [(32, 0.001), (64, 0.002), (128, 0.004)])
def test_no_user_has_more_items_in_doubt_than_pay(dim, spread):
    if ItemIndex.kernels()[0] == "amx":
        spread /= 5  # it rounds to integers that are so much larger
    rng = np.random.default_rng(0)
    users = rng.standard_normal((24, dim)).astype(np.float32)
    items = (rng.standard_normal(dim) + spread * rng.standard_normal((20_000, dim))).astype(np.float32)
    index = ItemIndex(items)
    index.rank(users, np.arange(24))
    # About a quarter of the items is in doubt, which takes longer than to score them all.
    assert index.rescored_share > 0.95


def test_the_share_rescored_is_told():
    rng = np.random.default_rng(0)
    users, items = (rng.standard_normal((n, 128), dtype=np.float32) for n in (64, 4000))
    index = ItemIndex(items)
    assert index.rescored_share == 0
    index.rank(users, np.arange(64))
    assert 0 < index.rescored_share < 0.2


LONG_WORK = {
    "rank": (100_000, "index.rank(users, np.zeros(20_000, dtype=int))"),
    "search": (100_000, "index.search(users, 20)"),
    "search all": (20_000, "index.search(users[:3000], 20_000)"),
    "many targets": (40_000, "index.rank(users[:1000], np.tile(np.arange(40_000), (1000, 1)))"),
    "many exclusions": (40_000, "index.rank(users[:1500], np.zeros(1500, int), exclude=others)"),
    "score": (40_000, "index.score(users[:1500], others)"),
    "build": (2_000_000, "ItemIndex(items)"),
    "bootstrap": (2, "bootstrap_interval(rng.random(5000), num_resamples=3_000_000)"),
    "permutations": (2, "paired_permutation_test(rng.random(1392), rng.random(1392), num_permutations=2**62)"),
    "arrangements": (2, "paired_permutation_test(rng.random(50), rng.random(50), num_permutations=2**62)"),
}


@pytest.mark.alone
@pytest.mark.parametrize("work", LONG_WORK)
def test_ctrl_c_interrupts_long_work(work):
    num_items, call = LONG_WORK[work]
    code = (
        "import signal, threading, time, os, numpy as np\n"
        "from langptune_rs import ItemIndex\n"
        "from langptune_rs.evaluation.significance import bootstrap_interval, paired_permutation_test\n"
        "rng = np.random.default_rng(0)\n"
        "two = rng.standard_normal((2, 256), dtype=np.float32)\n"
        f"users, items = (np.tile(two, (n // 2, 1)) for n in (20_000, {num_items}))\n"
        f"others = np.tile(np.arange(1, 40_000), (1500 if 'others' in {call!r} else 1, 1))\n"
        "index = ItemIndex(items[:100_000])\n"
        "pressed = []\n"
        "def press():\n"
        "    time.sleep(0.3)\n"
        "    pressed.append(time.perf_counter())\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=press).start()\n"
        "try:\n"
        f"    {call}\n"
        "except KeyboardInterrupt:\n"
        "    print(time.perf_counter() - pressed[0])\n"
        "assert index.rank(users[:2], [0, 1]).shape == (2,)\n"
    )
    assert float(run(code)) < 0.2


def test_small_scores_are_the_same_where_a_thread_takes_them_for_zero():
    pytest.importorskip("torch")
    code = (
        "import sys, hashlib, numpy as np, torch\n"
        "torch.set_flush_denormal(sys.argv[1] == 'flush')\n"
        "from langptune_rs import ItemIndex\n"
        "whole = np.random.default_rng(0).integers(-9, 10, (53, 8)).astype(np.float32)\n"
        "small = np.multiply(whole, np.float32(2.0**-66))\n"
        "index = ItemIndex(small[3:])\n"
        "scores, ids = index.search(small[:3], 50)\n"
        "ranks = index.rank(small[:3], [4, 5, 6])\n"
        "bits = hashlib.sha256(scores.tobytes() + ids.tobytes() + ranks.tobytes()).hexdigest()\n"
        "print((np.float32([1e-20]) * np.float32(1e-20))[0] == 0, bits)\n"
    )
    kept, flushed = run(code, "keep").split(), run(code, "flush").split()
    assert (kept[0], flushed[0]) == ("False", "True")
    assert kept[1] == flushed[1]
