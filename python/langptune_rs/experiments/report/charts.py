"""Charts as inline SVG that takes its colours from the page, so that it reads in a light and in a dark one."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_INK, _GRID, _FIRST, _SECOND = "#010101", "#010102", "#010103", "#010104"
_PAGE_COLOURS = {_INK: "var(--muted)", _GRID: "var(--line)", _FIRST: "var(--accent)", _SECOND: "var(--second)"}
"""Stand-ins that matplotlib draws with, and what the page puts in their place."""

_STYLE = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Series:
    """Values over steps; drawn as a line with its running mean, or as dots where each value stands for itself."""

    steps: Sequence[float]
    values: Sequence[float]
    dots: bool = False


def line_chart(
    name: str, description: str, line: Series, dots: Series | None = None, *, borders: Sequence[float] = ()
) -> str:
    """An SVG of `line` (and `dots`) over optimizer steps; `borders` are the steps where an iteration begins.

    `name` keeps the ids of several charts on one page apart, `description` is read to those who do not see it.
    """
    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(4.6, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for border in borders:
            axes.axvline(border, color=_GRID, linewidth=0.8, linestyle=(0, (4, 3)))
        smooth = running_mean(line.values)
        many = len(line.values) >= 2 * _WINDOWS
        axes.plot(
            line.steps, line.values, color=_FIRST, linewidth=1, alpha=0.3 if many else 1, marker="" if many else "."
        )
        if many:
            axes.plot(line.steps, smooth, color=_FIRST, linewidth=2)
        if dots and len(dots.steps):
            axes.plot(dots.steps, dots.values, color=_SECOND, linestyle="", marker="o", markersize=6)
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.margins(x=0.02)
        return _inline(figure, name, description)


def interval_chart(name: str, description: str, rows: Sequence[tuple[str, float, float, float]], marked: str) -> str:
    """An SVG of (label, mean, low, high) rows, each a dot on its interval; the row `marked` stands out."""
    with matplotlib.rc_context(
        {**_STYLE, "svg.hashsalt": name, "axes.grid.axis": "x", "axes.spines.left": False, "ytick.major.pad": 9}
    ):
        figure = Figure(figsize=(9.4, 0.5 + 0.36 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, (label, mean, low, high) in enumerate(rows):
            colour = _FIRST if label == marked else _INK
            axes.plot([low, high], [place, place], color=colour, linewidth=2.5, alpha=0.5, solid_capstyle="round")
            axes.plot([mean], [place], color=colour, marker="o", markersize=8, clip_on=False, zorder=3)
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        return _inline(figure, name, description)


_WINDOWS = 8


def running_mean(values: Sequence[float]) -> np.ndarray:
    """Mean of the last n values up to each place, n an eighth of them all, float64 (len(values),)."""
    width = max(1, len(values) // _WINDOWS)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _inline(figure: Figure, name: str, description: str) -> str:
    """The figure as one <svg> in the page's own font, without metadata or fixed size, its ids made unique by `name`."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    opening = re.match(r"<svg[^>]*>", svg)[0]
    view_box = re.search(r'viewBox="[^"]*"', opening)[0]
    svg = f'<svg {view_box} role="img" aria-label="{html.escape(description)}">{svg[len(opening) :]}'
    for colour, variable in _PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg
