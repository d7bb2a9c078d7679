"""Runs every comparison with other libraries and writes the tables: python benches/peers/results.py, or make bench.

Writes benches/results/<machine>-<date>.md and a plot beside it. Takes about a quarter of an hour on two cores; leave
the machine alone meanwhile.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from langptune_rs import ItemIndex
from langptune_rs.evaluation.tables import markdown_table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIBRARIES = ("numpy", "torch", "faiss-cpu", "ranx", "pytrec-eval-terrier", "trl")
RANKING = [(size, threads) for size in ("paper", "large") for threads in (1, 2)]
SIZES = {
    "paper": "1,392 users x 10,533 items x 512 dimensions",
    "large": "256 users x 1,000,000 items x 384 dimensions",
}


def measure(script: str, *arguments: str) -> dict[str, float]:
    """What one comparison prints: median seconds of each contender."""
    print("measuring:", script, *arguments, file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, HERE / script, *arguments], check=True, capture_output=True, text=True)
    return json.loads(done.stdout[done.stdout.index("{") :])


def kernels() -> list[tuple[str, float]]:
    """(kernel, operations a second) of every block of scores and of what the registers give at most."""
    print("measuring: cargo bench --bench ranking", file=sys.stderr, flush=True)
    command = ["cargo", "bench", "--quiet", "--locked", "--bench", "ranking", "--", "ceiling|block"]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    rates = []
    for estimates in sorted((ROOT / "target/criterion").glob("*/**/new/estimates.json")):
        benchmark = json.loads((estimates.parent / "benchmark.json").read_text())
        if benchmark["group_id"] in ("ceiling", "block"):
            nanoseconds = json.loads(estimates.read_text())["median"]["point_estimate"]
            (amount,) = benchmark["throughput"].values()
            rates.append((benchmark["full_id"], amount / nanoseconds))
    return rates


def milliseconds(time: float) -> str:
    return f"{1000 * time:,.0f} ms" if time >= 0.1 else f"{1000 * time:.3g} ms"


def ratio_table(seconds: dict[str, float], ours: dict[str, str]) -> str:
    """Every contender's time, and how many times ours it takes; `ours` names the columns and what they divide by."""
    rows = [
        (name, milliseconds(time), *(f"{time / seconds[own]:.2f}" for own in ours.values()))
        for name, time in seconds.items()
    ]
    return markdown_table(("", "median of 7", *(f"times {name}" for name in ours)), rows)


def machine() -> str:
    """The CPU's name and number of cores."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return f"{found[1] if found else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def plot(ranking: dict[tuple[str, int], dict[str, float]], path: Path) -> None:
    """Time of every contender on two threads, as bars, at both sizes."""
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
    for axis, size in zip(axes, SIZES, strict=True):
        seconds = ranking[size, 2]
        fastest = ItemIndex.kernels()[0]
        shown = {name: time for name, time in seconds.items() if "langptune" not in name or name.endswith(fastest)}
        names = sorted(shown, key=shown.get, reverse=True)
        colors = ["#c4513a" if "langptune" in name else "#8a9299" for name in names]
        bars = axis.barh(names, [1000 * shown[name] for name in names], color=colors)
        axis.bar_label(bars, fmt="{:,.0f} ms", padding=3, fontsize=8)
        axis.margins(x=0.18)
        axis.set_title(SIZES[size], fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("milliseconds, two threads", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    ranking = {(size, n): measure("ranking.py", "--size", size, "--threads", str(n)) for size, n in RANKING}
    evaluation = measure("evaluation.py", "--threads", "2")
    packing = {kind: measure("packing.py", "--dtype", kind, "--threads", "2") for kind in ("int32", "int64")}
    rates = kernels()

    today = datetime.date.today().isoformat()
    name = re.sub(r"[^a-z0-9]+", "-", machine().lower()).strip("-") + f"-{today}"
    folder = ROOT / "benches" / "results"
    folder.mkdir(exist_ok=True)
    plot(ranking, folder / f"{name}.png")
    fastest = ItemIndex.kernels()[0]
    own = {"rank": f"langptune: rank, {fastest}", "search": f"langptune: search 20, {fastest}"}
    parts = [
        f"# {machine()}, {today}",
        "Written by `make bench`. Each contender runs in a process of its own with its threads pinned, after one "
        "warm-up and a check of its result; they take turns, and the median of 7 rounds counts. Ratios compare within "
        "a table; times move with the machine's other load.",
        ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
        + f", Python {platform.python_version()}; kernels of this CPU: {', '.join(ItemIndex.kernels())}.",
        f"![Time of every way to rank]({name}.png)",
    ]
    for (size, threads), seconds in ranking.items():
        parts += [f"## Ranking, {SIZES[size]}, {threads} thread{'s' * (threads > 1)}", ratio_table(seconds, own)]
    parts += [
        "## Kernels, one thread, in the caches",
        markdown_table(("", "10^9 operations (bytes) a second"), [(kernel, f"{rate:.0f}") for kernel, rate in rates]),
        "## Metrics, intervals and tests, 2 threads",
        markdown_table(("", "median of 7"), [(name, milliseconds(time)) for name, time in evaluation.items()]),
    ]
    for kind, seconds in packing.items():
        ours = {"bins + collate": next(name for name in seconds if "langptune" in name and "collate" in name)}
        parts += [f"## Packing 100,000 sequences of {kind} tokens, 2 threads", ratio_table(seconds, ours)]
    path = folder / f"{name}.md"
    path.write_text("\n\n".join(parts) + "\n")
    print(path)


if __name__ == "__main__":
    main()
