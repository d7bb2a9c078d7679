"""Results as tables, for a terminal and for a Markdown file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from langptune_rs.evaluation.summary import (
    LIKELIHOOD_TEMPERATURE,
    LOG_LIKELIHOOD,
    LOG_RANK,
    LOWER_IS_BETTER,
    mean_text,
)
from langptune_rs.evaluation.tables import markdown_table
from langptune_rs.runs.results import BASELINE, PARTS

_LABELS = {
    "ndcg": "NDCG",
    "mrr": "MRR",
    "recall": "Recall",
    "precision": "Precision",
    LOG_LIKELIHOOD: "log-likelihood",
    LOG_RANK: "log-rank",
}
TABLE_WIDTH = 92
"""Characters that the widest table needs."""
ARROW = "↓: lower is better"
"""What the arrow of `label` means, for a caption."""


def label(metric: str) -> str:
    """ "ndcg@20" -> "NDCG@20"; an arrow down where lower is better."""
    name, at, k = metric.partition("@")
    return _LABELS.get(name, name) + at + k + (" ↓" if metric in LOWER_IS_BETTER else "")


def p_text(p_value: float | None) -> str:
    """A p-value for a table; a dash for the method that the others are compared with."""
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def headline_metric(results: dict[str, Any]) -> str:
    """The metric that decides: NDCG at the recipe's cutoff k."""
    return f"ndcg@{results['config']['k']}"


def cells(scores: dict[str, dict[str, Any]]) -> list[str]:
    """One method's row: each metric's mean and interval, then the p-value of the headline metric, the first one."""
    shown = [mean_text(numbers) for numbers in scores.values()]
    return [*shown, p_text(next(iter(scores.values()))["p_value"])]


def header(results: dict[str, Any]) -> list[str]:
    """The names of the columns of `cells`."""
    metrics = next(iter(results["methods"].values()))
    return [*map(label, metrics), f"p ({label(headline_metric(results))})"]


def markdown(results: dict[str, Any], table: str = "methods") -> str:
    """One of the tables of methods in Markdown."""
    rows = [(PARTS.get(method, method), *cells(scores)) for method, scores in results[table].items()]
    return markdown_table(("method", *header(results)), rows)


def compared_metrics(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The metrics of comparisons that are shown: NDCG at the cutoff, log-likelihood and log-rank, where they are."""
    metrics = list(dict.fromkeys(row["metric"] for row in rows))
    return [*metrics[:1], *(metric for metric in metrics[1:] if metric in (LOG_LIKELIHOOD, LOG_RANK))]


_P_NAMES = {"p": "p", "p_holm": "p (Holm)"}
"""The p-values that a row of a comparison may have, and their columns."""


def comparison_header(metrics: Sequence[str], p_values: Sequence[str] = ("p",)) -> list[str]:
    """The names of the columns of `comparison_rows`."""
    of_p = [_P_NAMES[p] for p in p_values]
    return ["method", "compared with", "profiles", *(name for metric in metrics for name in (label(metric), *of_p))]


def comparison_rows(
    rows: Sequence[Mapping[str, Any]], metrics: Sequence[str], p_values: Sequence[str] = ("p",)
) -> list[list[str]]:
    """One row of cells for each pair and decoding: the names, then the difference with its interval, and `p_values`.

    Behind the interval stands the standard deviation over seeds, where there are several. A dash stands for a metric
    that one of the two lacks.
    """
    return [
        [*names, *(text for metric in metrics for text in _compared(by_metric.get(metric), p_values))]
        for names, by_metric in _by_pair(rows).items()
    ]


def comparisons_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows of "comparisons" as a table in Markdown, p corrected by Holm beside p where the rows have it."""
    metrics = compared_metrics(rows)
    p_values = [p for p in _P_NAMES if all(p in row for row in rows)]
    return markdown_table(comparison_header(metrics, p_values), comparison_rows(rows, metrics, p_values))


def seeds_markdown(compared: Mapping[str, Any]) -> str:
    """What `compare_seeds` returns in Markdown: a table, and below it what its numbers are."""
    seeds = ", ".join(str(run["seed"]) for run in compared["runs"])
    several = len(compared["runs"]) > 1
    notes = [
        f"{compared['num_sessions']} {compared['split']} sessions of {compared['num_users']} users; "
        + (f"seeds {seeds}, averaged for each session." if several else f"seed {seeds}."),
        "Differences of means, with 95% bootstrap intervals and p of the paired permutation test; sessions of one user "
        "are drawn and swapped together.",
        *(["sd: standard deviation of the difference between the seeds."] if several else []),
        f"Log-likelihood at temperature {LIKELIHOOD_TEMPERATURE:g}. {ARROW}.",
    ]
    return "\n\n".join([comparisons_markdown(compared["comparisons"]), " ".join(notes)])


def _by_pair(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], dict[str, Mapping[str, Any]]]:
    """Rows of "comparisons" by method, other and decoding, and then by metric."""
    found: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        found.setdefault((row["method"], row["other"], row["decoding"]), {})[row["metric"]] = row
    return found


def _compared(row: Mapping[str, Any] | None, p_values: Sequence[str]) -> list[str]:
    if row is None:
        return ["–"] * (1 + len(p_values))
    low, high = row["interval"]
    spread = "" if row.get("seed_sd") is None else f", sd {row['seed_sd']:.4f}"
    return [f"{row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]{spread}", *(p_text(row[p]) for p in p_values)]


def print_results(results: dict[str, Any], console: Console | None = None) -> None:
    """Print the tables of `evaluate_run`'s results. A terminal narrower than the tables wraps their lines."""
    console = console or Console()
    console.width = max(console.width, TABLE_WIDTH)
    config = results["config"]
    captions = {
        "methods": f"{results['num_sessions']} {results['split']} sessions, {results['num_items']} items, greedy "
        "profiles",
        "sampled": f"the same, sampled profiles, {config['samples']} a session, temperature {config['temperature']:g}",
        "parts": "each trained model with the other one untrained, greedy profiles",
        "sampled_parts": "the same, sampled profiles",
    }
    for table, caption in captions.items():
        if results[table]:
            console.print(_rich_table(results, table, caption), "")
    console.print("[dim]Below each mean: 95% bootstrap interval. p: paired permutation test with LangPTune-0.[/dim]")
    if own := [row for row in results["comparisons"] or [] if row["method"] == config["method"]]:
        console.print("", _rich_comparisons(own))
        console.print("[dim]`langptune gains` prints the parts' too, with intervals.[/dim]")


def _rich_table(results: dict[str, Any], table: str, caption: str) -> Table:
    """A table with means above their intervals. Metrics without a cutoff are in the comparisons and results.json."""
    headline = headline_metric(results)
    metrics = [metric for metric in results["methods"][BASELINE] if "@" in metric]
    shown = Table(title=caption, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False)
    shown.add_column("method", no_wrap=True)
    for name in [*map(label, metrics), "p"]:
        shown.add_column(name, justify="right", no_wrap=True)
    for method, scores in results[table].items():
        intervals = (f"{_short(scores[m]['low'])}–{_short(scores[m]['high'])}" for m in metrics)
        means = (f"{scores[m]['mean']:.4f}" for m in metrics)
        both = [f"{mean}\n[dim]{interval}[/dim]" for mean, interval in zip(means, intervals, strict=True)]
        shown.add_row(PARTS.get(method, method).replace(", ", ",\n"), *both, p_text(scores[headline]["p_value"]))
    return shown


def _rich_comparisons(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The table of comparisons: the two methods of a pair above each other, and p below each difference."""
    metrics = compared_metrics(rows)
    caption = f"differences, with p below each ({ARROW})"
    shown = Table(title=caption, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False)
    shown.add_column("method", no_wrap=True)
    shown.add_column("profiles", no_wrap=True)
    for name in map(label, metrics):
        shown.add_column(name, justify="right", no_wrap=True)
    for (method, other, decoding), by_metric in _by_pair(rows).items():
        there = [by_metric.get(metric) for metric in metrics]
        both = [f"{row['difference']:+.4f}\n[dim]{p_text(row['p'])}[/dim]" if row else "–" for row in there]
        shown.add_row(f"{method}\n[dim]less {other}[/dim]", decoding, *both)
    return shown


def _short(value: float) -> str:
    """0.0123 -> .0123"""
    return f"{value:.4f}".removeprefix("0")
