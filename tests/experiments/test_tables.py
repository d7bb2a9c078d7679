"""Results as tables."""

import io
import re

import pytest
from rich.console import Console

from langptune_rs.evaluation.summary import with_holm
from langptune_rs.experiments.report.tables import comparisons_markdown, markdown, p_text, print_results
from langptune_rs.runs.results import PARTS, TABLES, read_results

METRICS = ["ndcg@20", "mrr@20", "recall@20", "precision@20"]


@pytest.mark.parametrize("width", [40, 80, 160])
def test_the_console_table_cuts_no_number(evaluated_run, width):
    results = read_results(evaluated_run)
    output = io.StringIO()
    print_results(results, Console(file=output, width=width))
    assert "…" not in output.getvalue()
    means, _, compared = output.getvalue().partition("Below each mean")
    expected = [
        [
            PARTS.get(method, method).partition(" initial")[0].partition(" trained policy")[0],
            *(f"{scores[metric]['mean']:.4f}" for metric in METRICS),
            p_text(scores["ndcg@20"]["p_value"]),
        ]
        for table in TABLES
        for method, scores in results[table].items()
    ]
    names = {row[0] for row in expected}
    lines = [re.split(r" {2,}", line.strip()) for line in means.splitlines()]
    assert [line for line in lines if line[0] in names] == expected
    headline = [r for r in results["comparisons"] if (r["method"], r["metric"]) == ("LangPTune", "ndcg@20")]
    lines = [re.split(r" {2,}", line.strip()) for line in compared.splitlines()]
    shown = [line[:3] for line in lines if line[1:2] in (["greedy"], ["sampled"])]
    assert shown == [[row["method"], row["decoding"], f"{row['difference']:+.4f}"] for row in headline]
    others = [line for line in lines if line[0].startswith("less ")]
    assert [line[:2] for line in others] == [[f"less {row['other']}", p_text(row["p"])] for row in headline]


def test_the_markdown_table_holds_the_results(evaluated_run):
    results = read_results(evaluated_run)
    header, rule, *rows = markdown(results).splitlines()
    assert re.fullmatch(r"[|:-]+", rule)
    assert header.count("|") == rows[0].count("|") == 10
    assert "log-rank ↓" in header
    for row, (method, scores) in zip(rows, results["methods"].items(), strict=True):
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert cells[0] == method
        for cell, score in zip(cells[1:], scores.values(), strict=False):
            assert cell == (f"{score['mean']:.4f} [{score['low']:.4f}, {score['high']:.4f}]" if score else "–")
        assert cells[-1] == p_text(scores["ndcg@20"]["p_value"])


def test_the_markdown_table_of_comparisons_has_a_row_for_each_pair(evaluated_run):
    rows = read_results(evaluated_run)["comparisons"]
    header, _, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in comparisons_markdown(rows).splitlines()
    )
    assert header == ["method", "compared with", "profiles", "NDCG@20", "p", "log-likelihood", "p", "log-rank ↓", "p"]
    expected = {}
    for row in rows:
        if row["metric"] in ("ndcg@20", "log_likelihood", "log_rank"):
            low, high = row["interval"]
            text = f"{row['difference']:+.4f} [{low:+.4f}, {high:+.4f}]", p_text(row["p"])
            names = row["method"], row["other"], row["decoding"]
            expected.setdefault(names, {})[row["metric"]] = text
    assert len(lines) == len(expected)
    for line, (names, by_metric) in zip(lines, expected.items(), strict=True):
        cells = [by_metric.get(metric, ("–", "–")) for metric in ("ndcg@20", "log_likelihood", "log_rank")]
        assert line == [*names, *(text for cell in cells for text in cell)]
        assert ("log_likelihood" in by_metric) == (names[1] != "MP")


def test_corrected_p_values_stand_beside_the_others():
    rows = [
        {"method": name, "other": "Z", "decoding": "greedy", "metric": metric, "difference": 0.1, "interval": [0, 1]}
        for name in "AB"
        for metric in ("ndcg@20", "log_rank")
    ]
    p_values = dict(zip([0, 1, 2, 3], [0.02, 0.5, 0.03, 0.01], strict=True))
    corrected = with_holm([{**row, "p": p_values[place]} for place, row in enumerate(rows)])
    assert [row["p_holm"] for row in corrected] == [0.04, 0.5, 0.04, 0.02]  # over two rows of each metric
    header, _, first, second = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in comparisons_markdown(corrected).splitlines()
    )
    assert header[3:] == ["NDCG@20", "p", "p (Holm)", "log-rank ↓", "p", "p (Holm)"]
    assert [first[4:6], second[4:6]] == [["0.020", "0.040"], ["0.030", "0.040"]]


def test_p_values_are_never_rounded_to_nothing():
    assert [p_text(p) for p in (None, 1e-5, 0.001, 0.0499, 1.0)] == ["–", "< 0.001", "0.001", "0.050", "1.000"]
