"""Runs every comparison with other libraries and writes the tables: python benches/peers/results.py, or make bench.

Writes benches/results/peers-<hardware>-<date>.md and a plot with the same stem. Takes about forty minutes on two quiet
cores; run nothing else meanwhile. With --try FOLDER the problems are small, and the numbers say nothing.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from langptune_rs import ItemIndex
from langptune_rs.evaluation.tables import markdown_table

sys.path.insert(0, str(Path(__file__).parents[1]))
from peers.ranking import BOUNDS, RANKERS, SEARCHERS, SIZES

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIBRARIES = ("numpy", "torch", "faiss-cpu", "ranx", "pytrec-eval-terrier", "trl")
THREADS = (1, 2)
FASTEST = ItemIndex.kernels()[0]
OURS = {"rank": f"langptune: rank, {FASTEST}", "search": f"langptune: search 20, {FASTEST}"}
APPROXIMATE = f"approximate kernel alone, {FASTEST}"
CAPACITY = (
    ("--items", "1000000", "--dim", "384", "--users", "4096"),
    ("--items", "100000", "--dim", "768", "--users", "4096"),
    ("--items", "1000000", "--dim", "384", "--users", "4096", "--no-copy"),
    ("--items", "1000000", "--dim", "384", "--users", "64"),
    ("--items", "1000000", "--dim", "384", "--users", "64", "--no-copy"),
)
"""Arguments of benches/capacity.py for the numbers that README and the documentation of ItemIndex give."""
CONTROLS = ("numpy: float32 matmul alone", OURS["rank"])
"""Contenders that two threads make faster on any quiet machine of two cores."""
LEAST_GAIN = 1.2

Seconds = dict[str, float]
Rates = dict[str, tuple[float, float]]
"""(10^9 operations, 10^9 bytes) a second of each of criterion's benchmarks; 0 for what it does not count."""


def output_of(script: Path, *arguments: str) -> dict[str, Any]:
    """The object that a script prints as JSON."""
    print("measuring:", script.name, *arguments, file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, script, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    printed: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return printed


def kernels() -> Rates:
    """The rates of every block of scores and of the ceilings, measured now."""
    print("measuring: cargo bench --bench ranking", file=sys.stderr, flush=True)
    command = ["cargo", "bench", "--quiet", "--locked", "--bench", "ranking", "--", "ceiling|block"]
    with TemporaryDirectory() as folder:  # so that no earlier results are read or overwritten
        environment = {**os.environ, "CRITERION_HOME": folder}
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment)
        return read_rates(Path(folder))


def read_rates(folder: Path) -> Rates:
    """The rates of all benchmarks that criterion has written to a folder."""
    rates: Rates = {}
    for estimates in sorted(folder.glob("**/new/estimates.json")):
        benchmark = json.loads((estimates.parent / "benchmark.json").read_text())
        nanoseconds = json.loads(estimates.read_text())["median"]["point_estimate"]
        if benchmark["group_id"] == "ceiling":  # the fastest sample, which other load slowed least
            sample = json.loads((estimates.parent / "sample.json").read_text())
            nanoseconds = min(time / times for time, times in zip(sample["times"], sample["iters"], strict=True))
        amounts = benchmark["throughput"]
        amounts = amounts.get("ElementsAndBytes", {name.lower(): amount for name, amount in amounts.items()})
        rates[benchmark["full_id"]] = (
            amounts.get("elements", 0) / nanoseconds,
            amounts.get("bytes", 0) / nanoseconds,
        )
    return rates


def share(part: float, ceiling: float | None) -> str:
    """`part` in percent of a ceiling; empty when there is none."""
    return f"{100 * part / ceiling:.0f}%" if ceiling else ""


def ceilings_table(rates: Rates) -> str:
    """The highest rates that the machine reaches."""
    rows = [
        (name.removeprefix("ceiling/"), *(f"{rate:,.0f}" if rate else "" for rate in both))
        for name, both in rates.items()
        if name.startswith("ceiling/")
    ]
    return markdown_table(("ceiling", "GFLOP/s", "GB/s"), rows)


def blocks_table(rates: Rates) -> str:
    """Every kernel's blocks of scores in the caches, at both sizes, compared with the ceilings."""
    rows = []
    for name, (operations, read) in rates.items():
        block, _, kernel = name.partition("/")
        if block.startswith("block"):
            ceiling, _ = rates.get(f"ceiling/{kernel}", (None, 0))
            _, reading = rates["ceiling/reading/cache"]
            label = f"{kernel}, {SIZES[block.removeprefix('block ')][2]} dimensions"
            rows.append((label, f"{operations:,.0f}", share(operations, ceiling), f"{read:.1f}", share(read, reading)))
    return markdown_table(("kernel", "GFLOP/s", "of its ceiling", "GB/s of items", "of reading a cache"), rows)


def whole_table(ranking: dict[tuple[str, int], Seconds], rates: Rates) -> str:
    """Ranks and searches on one thread, compared with the ceilings. Items are read at least once, in 16 bits."""
    rows = []
    for (size, threads), seconds in ranking.items():
        num_users, num_items, dim = SIZES[size]
        for name, time in seconds.items() if threads == 1 else ():
            if name.startswith("langptune"):
                kernel = name.rpartition(", ")[2]
                kinds = [rates[key][0] for kind in ("Eight", "Sixteen") if (key := f"ceiling/{kind}/{kernel}") in rates]
                operations, read = 2e-9 * num_users * num_items * dim / time, 2e-9 * num_items * dim / time
                of_ceiling = share(operations, kinds[0] if kinds else None)
                of_memory = share(read, rates["ceiling/reading/memory"][1])
                label = f"{name.removeprefix('langptune: ')}; {size}"
                rows.append((label, f"{operations:,.0f}", of_ceiling, f"{read:.1f}", of_memory))
    return markdown_table(("one thread", "GFLOP/s", "of its products' ceiling", "GB/s", "of reading memory"), rows)


def capacity_table(measured: Sequence[dict[str, Any]]) -> str:
    """The numbers of benches/capacity.py."""
    rows = [
        (
            f"{case['items']:,} x {case['dim']}, {case['users']:,} users"
            + ("" if case["keep_rounded"] else ", no copy"),
            f"{case['rank_users_per_minute']:,}",
            f"{case['search_users_per_minute']:,}",
            f"{case['items_bytes'] / 2**20:,.0f}",
            f"{case['bytes_beside'] / 2**20:,.0f}",
            f"{case['build_seconds']:.1f}",
        )
        for case in measured
    ]
    header = ("", "ranked a minute", "searched a minute", "items, MiB", "beside them, MiB", "index, s")
    return markdown_table(header, rows)


def milliseconds(time: float) -> str:
    """`time` seconds in milliseconds."""
    return f"{1000 * time:,.0f} ms" if time >= 0.1 else f"{1000 * time:.3g} ms"


def ratio_table(seconds: Seconds, ours: dict[str, str]) -> str:
    """Every contender's time and its ratio to ours; `ours` holds a column's name and the contender to divide by."""
    rows = [
        (name, milliseconds(time), *(f"{time / seconds[own]:.2f}" for own in ours.values()))
        for name, time in seconds.items()
    ]
    return markdown_table(("", "median", *(f"times {name}" for name in ours)), rows)


def fastest_peer(
    ranking: dict[tuple[str, int], Seconds], size: str, names: Iterable[str], threads: int
) -> tuple[float, str]:
    """(seconds, label) of the fastest on at most `threads` threads, since some are slower on two than on one."""
    return min(
        (seconds[name], f"{name}, {number} thread{'s' * (number > 1)}: {milliseconds(seconds[name])}")
        for (of_size, number), seconds in ranking.items()
        for name in names
        if of_size == size and number <= threads and name in seconds
    )


def summary_table(ranking: dict[tuple[str, int], Seconds]) -> str:
    """The table in README: ours beside the fastest of the others, and `rank` beside only its approximate kernel."""
    rows = []
    for (size, threads), seconds in ranking.items():
        where = f"{describe(size)}, {threads} thread{'s' * (threads > 1)}"
        for work, peers in {"rank": RANKERS, "search": SEARCHERS}.items():
            time, label = fastest_peer(ranking, size, peers, threads)
            own = seconds[OURS[work]]
            rows.append((f"{work}, {where}", label, milliseconds(own), f"{time / own:.1f} x"))
        own, bound = seconds[OURS["rank"]], seconds[APPROXIMATE]
        label = f"{APPROXIMATE}: {milliseconds(bound)}"
        rows.append((f"bound of rank, {where}", label, milliseconds(own), f"1 / {own / bound:.2f}"))
    return markdown_table(("work", "fastest of the others", "here", ""), rows)


def disturbance(one: Seconds, two: Seconds) -> str | None:
    """A warning when two threads hardly made the `CONTROLS` faster; None otherwise."""
    slow = [name for name in CONTROLS if one[name] < LEAST_GAIN * two[name]]
    if not slow:
        return None
    times = "; ".join(f"{name}: {milliseconds(one[name])} and {milliseconds(two[name])}" for name in slow)
    return f"**Not a quiet run: two threads were hardly faster than one ({times}). Do not rely on this table.**"


def describe(size: str) -> str:
    """The size in words."""
    return "{:,} users x {:,} items x {} dimensions".format(*SIZES[size])


def machine() -> str:
    """The CPU's name and number of cores."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
    return f"{found[1] if found else platform.processor() or platform.machine()}, {os.cpu_count()} cores"


def hardware(machine: str) -> str:
    """The machine's place in a results file's name: `Intel(R) Xeon(R) Processor, 2 cores` is intel-xeon-2-cores."""
    words = re.sub(r"\((r|tm)\)|\b(processor|cpu)\b|@.*?ghz", " ", machine.lower())
    return re.sub(r"[^a-z0-9]+", "-", words).strip("-")


def plot(ranking: dict[tuple[str, int], Seconds], path: Path) -> None:
    """Time of every contender on two threads, as bars, at each size."""
    sizes = list(dict.fromkeys(size for size, _ in ranking))
    figure, axes = plt.subplots(1, len(sizes), figsize=(5.5 * len(sizes), 4.5), layout="constrained", squeeze=False)
    for axis, size in zip(axes[0], sizes, strict=True):
        seconds = ranking[size, max(THREADS)]
        shown = {name: seconds[name] for name in (*RANKERS, *SEARCHERS, *BOUNDS, *OURS.values()) if name in seconds}
        names = sorted(shown, key=lambda name: shown[name], reverse=True)
        colors = ["#c4513a" if "langptune" in name else "#8a9299" for name in names]
        bars = axis.barh(names, [1000 * shown[name] for name in names], color=colors)
        axis.bar_label(bars, fmt="{:,.0f} ms", padding=3, fontsize=8)
        axis.margins(x=0.18)
        axis.set_title(describe(size), fontsize=9)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_xlabel("milliseconds, two threads", fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--try", dest="trial", type=Path, metavar="FOLDER", help="write small problems' numbers there")
    trial = parser.parse_args().trial
    rounds = ("--rounds", "1") if trial else ()
    sizes = ("small",) if trial else ("paper", "large")
    cases = [("--items", "5000", "--dim", "32", "--users", "300")] if trial else CAPACITY

    def measure(script: str, *arguments: str) -> Seconds:
        return output_of(HERE / script, *arguments, *rounds)

    ranking = {
        (size, threads): measure("ranking.py", "--size", size, "--threads", str(threads))
        for size in sizes
        for threads in THREADS
    }
    evaluation = measure("evaluation.py", "--threads", "2")
    packing = {kind: measure("packing.py", "--dtype", kind, "--threads", "2") for kind in ("int32", "int64")}
    capacity = [output_of(HERE.parent / "capacity.py", *case, "--threads", "2") for case in cases]
    rates = kernels()

    today = datetime.date.today().isoformat()
    name = f"peers-{hardware(machine())}-{today}"
    folder = trial or ROOT / "benches" / "results"
    folder.mkdir(exist_ok=True)
    plot(ranking, folder / f"{name}.png")
    parts = [
        f"# Ranking, metrics and packing beside other libraries, {machine()}, {today}",
        "Written by `make bench`. Each contender runs in its own process with its threads pinned, and its result is "
        "checked first. They take turns, warm up in every round, and the median of 7 rounds counts. Compare ratios "
        "within a table: times change with the machine's other load. At the large size all kernels except the "
        "fastest take their turns after all others, since memory has no room for them together.",
        ", ".join(f"{library} {version(library)}" for library in LIBRARIES)
        + f", Python {platform.python_version()}; kernels of this CPU: {', '.join(ItemIndex.kernels())}.",
        f"![Time of every way to rank]({name}.png)",
        "## Beside the fastest of the others",
        "Where another library is faster on one thread than on two, that time counts for two threads as well. The "
        "bound is a kernel that counts approximate scores and checks none of them.",
        summary_table(ranking),
    ]
    for (size, threads), seconds in ranking.items():
        parts.append(f"## Ranking, {describe(size)}, {threads} thread{'s' * (threads > 1)}")
        warning = disturbance(ranking[size, 1], seconds) if threads > 1 else None
        parts += [warning] if warning else []
        parts.append(ratio_table(seconds, OURS))
    parts += [
        "## Kernels, one thread",
        "GFLOP/s are 10^9 products and sums a second, of integers too. A ceiling is the fastest sample of the same "
        "arithmetic within the first cache, or of summing an array.",
        ceilings_table(rates),
        "A tile of users and a block of items in the caches:",
        blocks_table(rates),
        "The whole problem, which includes scoring items in doubt again and other work than products:",
        whole_table(ranking, rates),
        "## How far this machine goes, 2 threads",
        "By `benches/capacity.py`: items x dimensions, and users in one call.",
        capacity_table(capacity),
        "## Metrics, intervals and tests, 2 threads",
        markdown_table(("", "median"), [(name, milliseconds(time)) for name, time in evaluation.items()]),
    ]
    for kind, seconds in packing.items():
        ours = {"bins + collate": next(name for name in seconds if "langptune" in name and "collate" in name)}
        parts += [f"## Packing 100,000 sequences of {kind} tokens, 2 threads", ratio_table(seconds, ours)]
    path = folder / f"{name}.md"
    path.write_text("\n\n".join(parts) + "\n")
    print(path)


if __name__ == "__main__":
    main()
