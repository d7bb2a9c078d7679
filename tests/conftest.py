"""What every test stands on: no network, few threads, plain output, and the same examples in every run."""

import os

# Before any library reads them.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MPLBACKEND": "Agg",
    "NO_COLOR": "1",
    "COLUMNS": "120",
    "WANDB_MODE": "disabled",
    "NUMBA_DISABLE_JIT": "1",  # ranx, of which compiling takes a minute and running as plain Python less than a second
}
os.environ["OMP_NUM_THREADS"] = "1"  # sums have one order, and small models lose more to waiting than they gain

import pytest
from hypothesis import settings

settings.register_profile("langptune", deadline=None, derandomize=True, print_blob=False)
settings.load_profile("langptune")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let each of several workers begin with its share of the slow tests: what they share at the end is quick then."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow, quick = [], []
    for item in items:
        (slow if workers > 1 and item.get_closest_marker("slow") else quick).append(item)
    items.clear()
    for left in range(workers, 0, -1):
        num_slow = len(slow) // left
        num_quick = (len(slow) + len(quick)) // left - num_slow
        items += [*slow[:num_slow], *quick[:num_quick]]
        del slow[:num_slow], quick[:num_quick]
