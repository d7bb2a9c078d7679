"""Figures of an ablation that read in black and white: lines and markers tell the methods apart, colours repeat it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator

from langptune_rs.experiments.ablate.ablations import ABLATIONS, Ablation
from langptune_rs.experiments.report.charts import FIRST, GRID, INK, SECOND, inline, style
from langptune_rs.experiments.report.tables import label as metric_label
from langptune_rs.files import write_atomically
from langptune_rs.runs.results import BASELINE


@dataclass(frozen=True)
class Colours:
    """What a figure is drawn with."""

    ink: str
    grid: str
    series: tuple[str, ...]


PAGE = Colours(INK, GRID, (FIRST, SECOND, *6 * (INK,)))
"""Placeholders, which the page replaces by its own colours, light or dark."""
PAPER = Colours("#000000", "#d0d0d0", ("#000000", "#b24a00", *6 * ("#555555",)))
LOOKS: tuple[tuple[Literal["-", "--", ":", "-."], str], ...] = (
    *(("-", "o"), ("--", "s"), (":", "^"), ("-.", "D")),
    *(("-", "v"), ("--", "P"), (":", "X"), ("-.", "*")),
)
"""The line and the marker of each series."""
FORMATS = ("png", "svg")
HEADLINE, ALL = "ablation", "ablation-all"
"""The names of the figures: NDCG at the cutoff alone, and every metric."""


@dataclass(frozen=True)
class Series:
    """A method in one decoding: its mean and 95% interval for each value, in the order of the rows."""

    name: str
    points: Sequence[tuple[float, float, float]]


def series_of(ablation: Mapping[str, Any], metric: str) -> list[Series]:
    """The series of ablation.json for one metric: the trained method and LangPTune-0, greedy and sampled, and others.

    A method that lacks the metric, or a value, has none.
    """
    found = []
    for name, part in ((ablation["method"], "metrics"), (BASELINE, "untrained")):
        for decoding in ablation["rows"][0][part]:
            cells = [row[part][decoding].get(metric) for row in ablation["rows"]]
            if all(cell is not None for cell in cells):
                points = [(cell["mean"], cell["low"], cell["high"]) for cell in cells]
                found.append(Series(f"{name}, {decoding}", points))
    for name in ablation["rows"][0]["beside"]:
        others = [row["beside"].get(name, {"metrics": {}})["metrics"].get(metric) for row in ablation["rows"]]
        if all(cell is not None for cell in others):
            found.append(Series(name, [(cell["mean"], cell["low"], cell["high"]) for cell in others]))
    return found


def write_figures(ablation: Mapping[str, Any], output: Path) -> None:
    """Write `ablation.png`, `ablation.svg` and the same of `ablation-all` into `output`."""
    for name, metrics in ((HEADLINE, [headline(ablation)]), (ALL, shown_metrics(ablation))):
        with style({"svg.hashsalt": name, **_in(PAPER)}):
            figure = draw(ablation, metrics, PAPER)
            for kind in FORMATS:
                metadata = {"Title": spoken(ablation, metrics)} | ({"Date": None} if kind == "svg" else {})
                save = partial(figure.savefig, format=kind, dpi=200, metadata=metadata, facecolor="white")
                write_atomically(output / f"{name}.{kind}", save)


def inline_figure(ablation: Mapping[str, Any], name: str, metrics: Sequence[str]) -> str:
    """The same figure as an SVG within a page, in the page's colours."""
    with style({"svg.hashsalt": name}):
        return inline(draw(ablation, metrics, PAGE), name, spoken(ablation, metrics))


def headline(ablation: Mapping[str, Any]) -> str:
    """The metric that decides: NDCG at the cutoff."""
    return f"ndcg@{ablation['k']}"


def shown_metrics(ablation: Mapping[str, Any]) -> list[str]:
    """All metrics of the trained method but NDCG over the whole ranking, those of the paper first (figure 4)."""
    return [metric for metric in ablation["rows"][0]["metrics"]["greedy"] if metric != "ndcg"]


def spoken(ablation: Mapping[str, Any], metrics: Sequence[str]) -> str:
    """What the figure shows, for those who do not see it: every mean."""
    parts = []
    for metric in metrics:
        for series in series_of(ablation, metric):
            pairs = zip(ablation["rows"], series.points, strict=True)
            means = ", ".join(f"{row['label']}: {mean:.4f}" for row, (mean, _, _) in pairs)
            parts.append(f"{metric_label(metric)} of {series.name}: {means}")
    return f"{ablation['title']}. {'; '.join(parts)}."


def draw(ablation: Mapping[str, Any], metrics: Sequence[str], colours: Colours) -> Figure:
    """One plot for each metric: values across for numbers, down for texts, which are long."""
    kind = ABLATIONS[ablation["name"]]
    columns = min(len(metrics), 2)
    lines = -(-len(metrics) // columns)
    height = 3.1 if kind.kind != "text" else 1.2 + 0.62 * len(ablation["rows"])
    figure = Figure(figsize=(4.7 * columns + 1.5 * (columns == 1), height * lines + 0.5), layout="constrained")
    handles: list[Any] = []
    for place, metric in enumerate(metrics, start=1):
        axes = figure.add_subplot(lines, columns, place)
        series = series_of(ablation, metric)
        drawn = (
            _texts(axes, ablation, series, colours)
            if kind.kind == "text"
            else _numbers(axes, ablation, kind, series, colours)
        )
        handles = max(handles, drawn, key=len)
        axes.set_title(metric_label(metric), loc="left", fontsize=10, color=colours.ink)
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, handlelength=3.5)
    return figure


def _numbers(
    axes: Axes, ablation: Mapping[str, Any], kind: Ablation, series: Sequence[Series], colours: Colours
) -> list[Any]:
    """Lines over the values; series stand a little apart, so that their intervals do not hide each other."""
    values = [float(row["value"]) for row in ablation["rows"]]
    if kind.is_log:
        axes.set_xscale("log")
    low, high = min(values), max(values)
    drawn = []
    for number, of_series in enumerate(series):
        aside = 0.018 * (number - (len(series) - 1) / 2)  # a share of the axis
        places = [value * (high / low) ** aside if kind.is_log else value + (high - low) * aside for value in values]
        means = [mean for mean, _, _ in of_series.points]
        drawn.append(axes.errorbar(places, means, yerr=_bars(of_series), **_look(number, of_series, colours)))
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(values, [row["label"] for row in ablation["rows"]])
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.set_xlabel(kind.axis)
    return drawn


def _texts(axes: Axes, ablation: Mapping[str, Any], series: Sequence[Series], colours: Colours) -> list[Any]:
    """A dot on its interval for each value and series."""
    drawn = []
    for number, of_series in enumerate(series):
        places = [place + 0.17 * (number - (len(series) - 1) / 2) for place in range(len(of_series.points))]
        look = _look(number, of_series, colours) | {"linestyle": ""}
        bars = axes.errorbar([mean for mean, _, _ in of_series.points], places, xerr=_bars(of_series), **look)
        for line in bars.lines[2]:
            line.set_linestyle(LOOKS[number % len(LOOKS)][0])
        drawn.append(bars)
    axes.set_yticks(range(len(ablation["rows"])), [row["label"] for row in ablation["rows"]])
    axes.set_ylim(len(ablation["rows"]) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid(axis="x")
    return drawn


def _bars(series: Series) -> list[list[float]]:
    """How far the interval goes below and above each mean, (2, n)."""
    below = [max(mean - low, 0.0) for mean, low, _ in series.points]
    return [below, [max(high - mean, 0.0) for mean, _, high in series.points]]


def _look(number: int, series: Series, colours: Colours) -> dict[str, Any]:
    line, marker = LOOKS[number % len(LOOKS)]
    return {
        "label": series.name,
        "color": colours.series[number % len(LOOKS)],
        "linestyle": line,
        "marker": marker,
        "markersize": 6,
        "markerfacecolor": colours.series[number % len(LOOKS)] if number == 0 else "none",
        "linewidth": 1.6,
        "elinewidth": 1.1,
        "capsize": 3,
    }


def _in(colours: Colours) -> dict[str, Any]:
    """The style of charts in other colours."""
    ink, grid = colours.ink, colours.grid
    inked = dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), ink)
    return {**inked, "axes.edgecolor": grid, "grid.color": grid}
