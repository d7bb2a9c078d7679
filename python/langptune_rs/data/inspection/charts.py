"""An inspection as a PNG of histograms."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from langptune_rs.data.inspection.inspect import Inspection, bin_counts, bin_edges, is_heavy_tailed
from langptune_rs.errors import DataError
from langptune_rs.files import write_atomically

HISTOGRAMS = "histograms.png"

_NUM_BINS = 40
_COLUMNS = 3
_DAY = 86400
_AXES = {
    "interactions_per_user": ("interactions per user", "users"),
    "interactions_per_item": ("interactions per item", "items"),
    "item_characters": ("characters of item text", "items"),
    "item_tokens": ("embedder tokens of item text", "items"),
    "review_characters": ("characters of review", "reviews"),
    "history_characters": ("characters of history", "sessions"),
    "history_tokens": ("policy tokens of history", "sessions"),
    "later_targets": ("later targets, up to 10", "train sessions"),
}
_LIMITS = {"item_tokens": "max_item_tokens", "history_tokens": "max_history_tokens"}
"""The setting that limits a length, which is drawn as a line."""

_COLOURS = {"train": "#4269d0", "validation": "#efb118", "test": "#d1495b"}
_STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
}


def charts_folder(folder: str | Path) -> Path:
    """The folder for charts by default. It is beside the data set, whose own folder holds nothing else."""
    folder = Path(folder).resolve()
    return folder.with_name(f"{folder.name}-inspect")


def check_folder(out: Path, folder: Path) -> None:
    """Raise `DataError` when charts for the data set in `folder` cannot go to `out`."""
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file. Give a folder for the charts.")
    if out.resolve() == folder.resolve():
        raise DataError(f"{out} is the data set, which holds no other files. Give another folder for the charts.")


def write_charts(inspection: Inspection, out: Path) -> Path:
    """Write the histograms of an inspection to `out`, and return the file's path."""
    figure = draw(inspection)
    write_atomically(out / HISTOGRAMS, lambda file: figure.savefig(file, format="png"))
    return out / HISTOGRAMS


def draw(inspection: Inspection) -> Figure:
    """A figure with a histogram for each length, for ratings and for times, where these are known."""
    panels = _panels(inspection)
    rows = math.ceil(len(panels) / _COLUMNS)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4 * _COLUMNS, 2.9 * rows), layout="constrained", dpi=130)
        for place, panel in enumerate(panels, start=1):
            panel(figure.add_subplot(rows, _COLUMNS, place))
    return figure


def _panels(inspection: Inspection) -> list[Callable[[Axes], None]]:
    """A function for each chart that has something to draw."""
    config, ratings = inspection.numbers["config"], inspection.numbers["ratings"]
    panels: list[Callable[[Axes], None]] = [
        partial(_lengths, name=name, values=values, limit=config.get(_LIMITS.get(name)))
        for name, values in inspection.lengths.items()
    ]
    if ratings:
        panels.append(partial(_ratings, ratings=ratings))
    if any(map(len, inspection.target_times.values())):
        panels.append(partial(_times, times=inspection.target_times))
    return panels


def _lengths(axes: Axes, name: str, values: np.ndarray, limit: int | None) -> None:
    """A histogram with the median as a line. Both scales are logarithmic where the tail is heavy."""
    edges = bin_edges(values, _NUM_BINS)
    shown = edges - 0.5  # so that the bar of a single value is centred on it
    axes.bar(shown[:-1], bin_counts(values, edges), np.diff(shown), align="edge", color=_COLOURS["train"], linewidth=0)
    if is_heavy_tailed(values):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlim(left=max(0.5, shown[0]))
        axes.set_ylim(bottom=0.5)
    median = float(np.median(values))
    axes.axvline(median, color="#222222", linewidth=1, linestyle="--", label=f"median {median:,.0f}")
    if limit is not None and limit <= 2 * values.max():  # a limit far away would leave no room for the bars
        axes.axvline(limit, color=_COLOURS["test"], linewidth=1, label=f"limit {limit:,}")
    axes.legend(frameon=False)
    _label(axes, *_AXES[name])
    axes.xaxis.set_major_formatter(FuncFormatter(_short))


def _ratings(axes: Axes, ratings: list[dict[str, float]]) -> None:
    values = [row["rating"] for row in ratings]
    width = 0.8 * min(np.diff(values), default=1.0)
    axes.bar(values, [row["count"] for row in ratings], width, color=_COLOURS["train"])
    _label(axes, "rating in a history", "interactions")


def _times(axes: Axes, times: dict[str, np.ndarray]) -> None:
    """Targets of each split over time, as lines over the same bins."""
    days = {split: values / _DAY for split, values in times.items() if len(values)}
    both = np.concatenate(list(days.values()))
    edges = np.linspace(both.min(), max(both.max(), both.min() + 1), _NUM_BINS + 1)
    for split, values in days.items():
        axes.stairs(np.histogram(values, edges)[0], edges, color=_COLOURS[split], linewidth=1.5, label=split)
    axes.set_yscale("symlog", linthresh=1)
    axes.set_ylim(bottom=0)
    locator = AutoDateLocator()  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.legend(frameon=False)
    _label(axes, "time of the target", "sessions")


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.yaxis.set_major_formatter(FuncFormatter(_short))


def _short(value: float, _: int) -> str:
    """1500 -> 1.5k"""
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"
