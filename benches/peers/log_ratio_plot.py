"""The plot of what benches/log_ratio_noise.py prints with --json: which part of a step is noise, and the losses.

python benches/peers/log_ratio_plot.py NUMBERS.json [MORE.json ...] --output PLOT.png
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    plot([row for file in options.numbers for row in json.loads(file.read_text())], options.output)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw noise over step of each row, and the losses of the rows that have some, into a PNG."""
    ways = list(dict.fromkeys(row["way"] for row in rows))
    rates = sorted({row["learning rate"] for row in rows})
    figure, (noise, loss) = plt.subplots(1, 2, figsize=(13, 5), layout="constrained", width_ratios=(3, 2))
    for i, rate in enumerate(rates):
        of_rate = {row["way"]: row for row in rows if row["learning rate"] == rate}
        places = [ways.index(way) + 0.4 * (i + 0.5) / len(rates) * 2 - 0.4 for way in of_rate]
        heights = [row["noise / step"] for row in of_rate.values()]
        noise.barh(places, heights, 0.75 / len(rates), label=f"learning rate {rate:g}")
    noise.set_yticks(range(len(ways)), ways)
    noise.invert_yaxis()
    noise.set_xscale("log")
    noise.axvline(0.1, color="black", linestyle="--", linewidth=1)
    noise.set_xlabel("noise of a pair's log-ratio over what one step makes of it (dashed: a tenth)")
    noise.legend(loc="upper right")
    updated = [row for row in rows if row.get("losses")]
    for row in updated:
        style = ("-", "--", ":")[rates.index(row["learning rate"]) % 3]
        color = f"C{list(dict.fromkeys(r['way'] for r in updated)).index(row['way'])}"
        label = f"{row['way']}, {row['learning rate']:g}"
        loss.plot(range(1, len(row["losses"]) + 1), row["losses"], style, color=color, label=label)
    if updated:
        loss.set_xlabel("update over one rollout batch")
        loss.set_ylabel("loss (Eq. 6)")
        loss.legend(fontsize="small")
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == "__main__":
    main()
