"""Charts as inline SVG. They take their colours from the page, so they are legible in a light and a dark theme."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

INK, GRID, FIRST, SECOND = "#010101", "#010102", "#010103", "#010104"
_PAGE_COLOURS = {INK: "var(--muted)", GRID: "var(--line)", FIRST: "var(--accent)", SECOND: "var(--second)"}
"""Placeholder colours that matplotlib draws with, and the page's variables that replace them."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
}


@dataclass(frozen=True)
class Series:
    """Values over steps."""

    steps: Sequence[float]
    values: Sequence[float]


def line_chart(
    name: str, description: str, line: Series, dots: Series | None = None, *, borders: Sequence[float] = ()
) -> str:
    """An SVG of `line` with its running mean, and of `dots`, over optimizer steps.

    `borders` are the steps where an iteration begins. `name` keeps the ids of several charts on one page apart.
    `description` is the text for screen readers.
    """
    with style({"svg.hashsalt": name}):
        figure = Figure(figsize=(4.6, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for border in borders:
            axes.axvline(border, color=GRID, linewidth=0.8, linestyle=(0, (4, 3)))
        smooth = running_mean(line.values)
        many = len(line.values) >= 2 * _WINDOWS
        axes.plot(
            line.steps, line.values, color=FIRST, linewidth=1, alpha=0.3 if many else 1, marker="" if many else "."
        )
        if many:
            axes.plot(line.steps, smooth, color=FIRST, linewidth=2)
        if dots and len(dots.steps):
            axes.plot(dots.steps, dots.values, color=SECOND, linestyle="", marker="o", markersize=6)
        axes.set_xlabel("optimizer step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.margins(x=0.02)
        return inline(figure, name, description)


def interval_chart(name: str, description: str, rows: Sequence[tuple[str, float, float, float]], marked: str) -> str:
    """An SVG of (label, mean, low, high) rows, each a dot on its interval; the row `marked` stands out."""
    with style({"svg.hashsalt": name, "axes.grid.axis": "x", "axes.spines.left": False, "ytick.major.pad": 9}):
        figure = Figure(figsize=(9.4, 0.5 + 0.36 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for place, (label, mean, low, high) in enumerate(rows):
            colour = FIRST if label == marked else INK
            axes.plot([low, high], [place, place], color=colour, linewidth=2.5, alpha=0.5, solid_capstyle="round")
            axes.plot([mean], [place], color=colour, marker="o", markersize=8, clip_on=False, zorder=3)
        axes.set_yticks(range(len(rows)), [label for label, *_ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        return inline(figure, name, description)


def style(settings: Mapping[str, Any]) -> AbstractContextManager[None]:
    """matplotlib's settings for all charts, with those of one chart, inside the block."""
    return matplotlib.rc_context(cast(Any, {**_STYLE, **settings}))


_WINDOWS = 8


def running_mean(values: Sequence[float]) -> NDArray[np.float64]:
    """Mean of the last n values up to each place, float64 (len(values),); n is an eighth of their number."""
    width = max(1, len(values) // _WINDOWS)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    means: NDArray[np.float64] = (sums[ends] - sums[starts]) / (ends - starts)
    return means


def inline(figure: Figure, name: str, description: str) -> str:
    """The figure as one <svg> in the page's font, without metadata or a fixed size; `name` makes its ids unique."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*; ?", "", svg)
    opening = re.match(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', svg)
    assert opening, "matplotlib begins an SVG with its size and view box"
    svg = f'<svg {opening[1]} role="img" aria-label="{html.escape(description)}">{svg[opening.end() :]}'
    for colour, variable in _PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return svg
