"""Results as tables, for a terminal and for a Markdown file."""

from __future__ import annotations

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from langptune_rs.evaluation.tables import markdown_table
from langptune_rs.runs.results import BASELINE

_LABELS = {"ndcg": "NDCG", "mrr": "MRR", "recall": "Recall", "precision": "Precision"}
TABLE_WIDTH = 84
"""Characters that the widest table needs."""


def label(metric: str) -> str:
    """ "ndcg@20" -> "NDCG@20"."""
    name, at, k = metric.partition("@")
    return _LABELS.get(name, name) + at + k


def p_text(p_value: float | None) -> str:
    """A p-value for a table; a dash for the method that the others are compared with."""
    if p_value is None:
        return "–"
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"


def headline_metric(results: dict[str, Any]) -> str:
    """The metric that decides: NDCG at the recipe's cutoff k."""
    return f"ndcg@{results['config']['k']}"


def cells(scores: dict[str, dict[str, float | None]]) -> list[str]:
    """One method's row: each metric's mean and interval, then the p-value of the headline metric, the first one."""
    shown = [f"{m['mean']:.4f} [{m['low']:.4f}, {m['high']:.4f}]" for m in scores.values()]
    return [*shown, p_text(next(iter(scores.values()))["p_value"])]


def header(results: dict[str, Any]) -> list[str]:
    """The names of the columns of `cells`."""
    metrics = next(iter(results["methods"].values()))
    return [*map(label, metrics), f"p ({label(headline_metric(results))})"]


def markdown(results: dict[str, Any], table: str = "methods") -> str:
    """The table "methods", "sampled" or "parts" in Markdown."""
    rows = [(method, *cells(scores)) for method, scores in results[table].items()]
    return markdown_table(("method", *header(results)), rows)


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
    }
    for table, caption in captions.items():
        if results[table]:
            console.print(_rich_table(results, table, caption), "")
    console.print("[dim]Below each mean: 95% bootstrap interval. p: paired permutation test with LangPTune-0.[/dim]")


def _rich_table(results: dict[str, Any], table: str, caption: str) -> Table:
    """A table with means above their intervals. NDCG over the whole catalog is only in results.json."""
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
        shown.add_row(method, *both, p_text(scores[headline]["p_value"]))
    return shown


def _short(value: float) -> str:
    """0.0123 -> .0123"""
    return f"{value:.4f}".removeprefix("0")
