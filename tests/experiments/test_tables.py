"""Results as tables."""

import io
import re

import pytest
from rich.console import Console

from langptune_rs.experiments.report.tables import markdown, p_text, print_results
from langptune_rs.runs.results import read_results

METRICS = ["ndcg@20", "mrr@20", "recall@20", "precision@20"]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_console_table_cuts_no_number(evaluated_run, width):
    results = read_results(evaluated_run)
    output = io.StringIO()
    print_results(results, Console(file=output, width=width))
    assert "…" not in output.getvalue()
    expected = [
        [method, *(f"{scores[metric]['mean']:.4f}" for metric in METRICS), p_text(scores["ndcg@20"]["p_value"])]
        for table in ("methods", "sampled", "parts")
        for method, scores in results[table].items()
    ]
    names = {row[0] for row in expected}
    lines = [line.split(maxsplit=5) for line in output.getvalue().splitlines()]
    assert [[cell.strip() for cell in line] for line in lines if line and line[0] in names] == expected


def test_the_markdown_table_holds_the_results(evaluated_run):
    results = read_results(evaluated_run)
    header, rule, *rows = markdown(results).splitlines()
    assert re.fullmatch(r"[|:-]+", rule)
    assert header.count("|") == rows[0].count("|") == 8
    for row, (method, scores) in zip(rows, results["methods"].items(), strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == method
        for cell, score in zip(cells[1:], scores.values(), strict=False):
            assert cell == f"{score['mean']:.4f} [{score['low']:.4f}, {score['high']:.4f}]"
        assert cells[-1] == p_text(scores["ndcg@20"]["p_value"])


def test_p_values_are_never_rounded_to_nothing():
    assert [p_text(p) for p in (None, 1e-5, 0.001, 0.0499, 1.0)] == ["–", "< 0.001", "0.001", "0.050", "1.000"]
