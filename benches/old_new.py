"""A rollout, its updates and a whole step of RLSO by two checkouts of this repository, alone and beside a busy process.

    python benches/old_new.py OLD --source FOLDER

OLD is a checkout of an earlier commit with its extension built in `python/langptune_rs`. Each runs its own
`benches/rlso_step.py --peers ours`, in a process of its own, in turns. Times are medians over the rounds. A busy
process computes without a pause on one CPU and never sleeps, as another user's job does.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NEW = Path(__file__).parents[1]
COLUMNS = ("rollout_seconds", "update_seconds", "seconds_per_step", "peak_memory_mib")
BUSY = "while True: pass"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 1], help="busy processes beside, for each table row")
    options, of_step = parser.parse_known_args()
    print("| beside | | old | new | old / new |\n|---|---|---:|---:|---:|")
    for num_busy in options.busy:
        runs: dict[Path, list[dict[str, dict[str, float]]]] = {options.old.resolve(): [], NEW: []}
        for _ in range(options.rounds):
            for checkout, of_checkout in runs.items():
                print(f"running: {checkout.name}, beside {num_busy} busy processes", file=sys.stderr)
                with busy(num_busy):
                    of_checkout.append(step(checkout, of_step))
        for column in COLUMNS:
            old, new = (statistics.median(run[column]["ours"] for run in of) for of in runs.values())
            name = column.replace("_", " ")
            print(f"| {num_busy} busy | {name} | {old:,.1f} | {new:,.1f} | {old / new:.2f} |", flush=True)


def step(checkout: Path, options: list[str]) -> dict[str, dict[str, float]]:
    """The numbers of a step by the package of a checkout."""
    command = [sys.executable, str(checkout / "benches/rlso_step.py"), "--peers", "ours", "--json", *options]
    environment = os.environ | {"PYTHONPATH": str(checkout / "python")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    numbers: dict[str, dict[str, float]] = json.loads(done.stdout)
    return numbers


@contextmanager
def busy(count: int) -> Iterator[None]:
    """Inside the block, so many other processes compute all the time."""
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


if __name__ == "__main__":
    main()
