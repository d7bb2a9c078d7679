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
from matplotlib.axes import Axes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("numbers", type=Path, nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    plot([row for file in options.numbers for row in json.loads(file.read_text())], options.output)


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw noise over step of each row, and the losses if rows have some, into a PNG."""
    updated = [row for row in rows if row.get("losses")]
    figure, axes = plt.subplots(
        1, 1 + bool(updated), figsize=(9 + 5 * bool(updated), 5), layout="constrained", squeeze=False
    )
    _draw_noise(axes[0, 0], rows)
    if updated:
        _draw_losses(axes[0, 1], updated)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def _draw_noise(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    ways = list(dict.fromkeys(row["way"] for row in rows))
    rates = sorted({row["learning rate"] for row in rows})
    for i, rate in enumerate(rates):
        of_rate = {row["way"]: row["noise / step"] for row in rows if row["learning rate"] == rate}
        places = [ways.index(way) + 0.8 * (i + 0.5) / len(rates) - 0.4 for way in of_rate]
        axes.barh(places, list(of_rate.values()), 0.75 / len(rates), label=f"learning rate {rate:g}")
    axes.set_yticks(range(len(ways)), ways)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(0.1, color="black", linestyle="--", linewidth=1)
    axes.set_xlabel("noise of a pair's log-ratio over what one step makes of it (dashed: a tenth)")
    axes.legend()


def _draw_losses(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    ways = list(dict.fromkeys(row["way"] for row in rows))
    rates = sorted({row["learning rate"] for row in rows})
    for row in rows:
        style, color = ("-", "--", ":")[rates.index(row["learning rate"]) % 3], f"C{ways.index(row['way'])}"
        label = f"{row['way']}, {row['learning rate']:g}"
        axes.plot(range(1, len(row["losses"]) + 1), row["losses"], style, color=color, label=label)
    axes.set_xlabel("update over one rollout batch")
    axes.set_ylabel("loss (Eq. 6)")
    axes.legend(fontsize="small")


if __name__ == "__main__":
    main()
