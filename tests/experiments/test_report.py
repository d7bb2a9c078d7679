"""The report: one file, honest numbers, nothing loaded from elsewhere, nothing unescaped."""

import json
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import polars as pl
import pytest

from langptune_rs.data import open_source
from langptune_rs.errors import RunError
from langptune_rs.experiments.report.charts import Series, line_chart, running_mean
from langptune_rs.experiments.report.report import choose_examples, own_gains, render, verdict, write_report
from langptune_rs.experiments.report.tables import print_results
from langptune_rs.models.tokens import token_counters
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.metrics_log import read_metrics
from langptune_rs.runs.results import TABLES, read_results

LOADS = {"src", "href", "srcset", "data", "action", "poster", "xlink:href"}
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, ids and loaded addresses of a page; the cells of its tables; its text. Fails on crossed tags."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.addresses, self.tables, self.text, self._open = [], [], [], [], [], []
        self.feed(text)
        assert not self._open

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self._open.pop()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in LOADS:
                self.addresses.append(value)
            if name == "id":
                self.ids.append(value)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in {"td", "th"}:
            self.tables[-1][-1].append([])
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if "table" in self._open and ("td" in self._open or "th" in self._open):
            self.tables[-1][-1][-1].append(data)


@pytest.fixture(scope="module")
def parts(evaluated_run):
    """What `render` takes."""
    config = read_config(evaluated_run)
    counters = token_counters(config.embedder.model, config.policy.model)
    return {
        "config": config,
        "results": read_results(evaluated_run),
        "metrics": read_metrics(evaluated_run),
        "dataset": open_source(config.data, evaluated_run / "data", counters),
        "per_user": pl.read_parquet(evaluated_run / "per_user.parquet"),
        "profiles": pl.read_parquet(evaluated_run / "profiles.parquet"),
    }


@pytest.fixture(scope="module")
def page(evaluated_run):
    return Page(write_report(evaluated_run).read_text(encoding="utf-8"))


def test_the_page_loads_nothing(evaluated_run, page):
    assert all(address.startswith("#") for address in page.addresses)
    assert not {"script", "link", "iframe", "object", "embed", "img"} & set(page.tags)
    text = (evaluated_run / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert all(address.startswith("#") for address in re.findall(r"url\(([^)]*)\)", text))


def test_ids_are_unique_and_references_meet_one(evaluated_run, page):
    assert len(page.ids) == len(set(page.ids))
    text = (evaluated_run / "report.html").read_text(encoding="utf-8")
    referred = {a[1:] for a in page.addresses} | set(re.findall(r"url\(#([^)]*)\)", text))
    assert referred <= set(page.ids)


@pytest.mark.parametrize(("number", "table"), list(enumerate(TABLES)))
def test_the_tables_show_the_results(parts, page, number, table):
    results = parts["results"]
    rows = page.tables[number][1:]
    assert len(rows) == len(results[table])
    for row, scores in zip(rows, results[table].values(), strict=True):
        for cell, score in zip(row[1:8], scores.values(), strict=True):
            if score is None:
                assert cell == ["–"]
            else:
                between = " to " if score["low"] < 0 else "–"
                assert cell == [f"{score['mean']:.4f}", f"{score['low']:.4f}{between}{score['high']:.4f}"]
        p_value = scores["ndcg@20"]["p_value"]
        assert row[8] == (["–"] if p_value is None else ["< 0.001"] if p_value < 0.001 else [f"{p_value:.3f}"])


def test_the_comparisons_and_the_gain_of_each_model_are_shown(parts, page):
    rows = parts["results"]["comparisons"]
    shown = [row for row in page.tables[5] if row[0] != ["method"]]
    headline = [row for row in rows if row["metric"] == "ndcg@20"]
    assert [row[:3] for row in shown] == [[[row["method"]], [row["other"]], [row["decoding"]]] for row in headline]
    for cells, row in zip(shown, headline, strict=True):
        low, high = row["interval"]
        assert cells[3] == [f"{row['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}"]
        assert (cells[5] == ["–"]) == (row["other"] == "MP")
    gains = own_gains(parts["results"])
    assert len(gains) == 4
    for gain, row in zip(gains[:2], (row for row in headline if row["other"].startswith("trained")), strict=True):
        assert gain.startswith(
            f"The policy's own gain, {row['decoding']} profiles: NDCG@20 {row['difference']:+.4f} (p "
        )
    text = "".join(page.text)
    assert all(gain in text for gain in gains)


def test_results_of_an_earlier_version_have_no_comparisons(evaluated_run, tmp_path):
    """They are read and shown, and what is missing is said to be absent. What is damaged is still damaged."""
    run = tmp_path / "run"
    shutil.copytree(evaluated_run, run)
    results = json.loads((run / "results.json").read_text())
    later = {"comparisons", "sampled_parts"}
    earlier = {key: value for key, value in results.items() if key not in later}
    for table in ("methods", "sampled", "parts"):
        for scores in earlier[table].values():
            del scores["log_likelihood"], scores["log_rank"]
    (run / "results.json").write_text(json.dumps(earlier))
    text = "".join(Page(write_report(run).read_text(encoding="utf-8")).text)
    assert "an earlier version evaluated this run" in text
    assert "Sessions count as independent" in text
    assert own_gains(read_results(run)) == []
    print_results(read_results(run))
    row = {**results["comparisons"][0], "interval": [0.1]}
    for damaged, message in (
        ({"comparisons": [row]}, r"has no two numbers in comparisons\[0\]\.interval"),
        ({"comparisons": [{}]}, r"has no comparisons\[0\]\.method"),
        ({"comparisons": {}}, "has comparisons = "),
        ({"sampled_parts": []}, r"has sampled_parts = \[\]"),
    ):
        (run / "results.json").write_text(json.dumps(earlier | damaged))
        with pytest.raises(RunError, match=message):
            write_report(run)


def test_text_of_models_data_and_configuration_is_escaped(parts):
    attack = '<script>alert("profile")</script><img src="https://example.org/x">'
    catalog = replace(parts["dataset"].catalog, titles=[attack] * len(parts["dataset"].catalog))
    profile = parts["config"].profile.model_copy(update={"instruction": attack})
    poisoned = {
        "profiles": parts["profiles"].with_columns(text=pl.lit(attack)),
        "per_user": parts["per_user"].with_columns(user_id=pl.lit(attack)),
        "dataset": replace(parts["dataset"], catalog=catalog),
        "config": parts["config"].model_copy(update={"profile": profile}),
    }
    text = render(**{**parts, **poisoned})
    assert "<script" not in text
    page = Page(text)
    assert "img" not in page.tags
    shown = "".join(page.text)
    assert shown.count(attack) == 5 * (2 + 4 + 1 + 1)
    assert attack.replace('"', '\\"') in shown


def test_all_curves_are_drawn_and_described(page, parts):
    assert page.tags.count("svg") == 13
    whole = render(**parts)
    for title in ("Profiles without an end", "Distinct profiles", "Repetition", "Entropy of the policy"):
        assert f"{title}: from 0." in whole
    without = [line for line in parts["metrics"] if line["phase"] == "contrastive"]
    text = render(**{**parts, "metrics": without})
    assert Page(text).tags.count("svg") == 2
    assert text.count("Not measured in this run.") == 11


def test_steps_on_histories_have_a_curve_of_their_own(parts):
    contrastive = parts["config"].contrastive.model_copy(update={"history_steps": 2})
    config = parts["config"].model_copy(update={"contrastive": contrastive})
    history = [{"step": i, "iteration": 0, "phase": "history", "contrastive/loss": 9.0 - i} for i in (1, 2)]
    later = [{**line, "step": line["step"] + 2} for line in parts["metrics"]]
    text = render(**{**parts, "config": config, "metrics": [*history, *later]})
    without = Page(render(**{**parts, "metrics": later})).tags.count("svg")
    assert Page(text).tags.count("svg") == without + 1
    assert "Contrastive loss on histories: from 8 at step 1 to 7 at step 2." in text
    assert "Contrastive loss: from 3.9 at step 1 to" in text


def test_examples_are_spread_from_the_worst_to_the_best():
    before = np.array([10, 2, 4, 100, 1, 8, 50, 20, 3])
    after = np.array([5, 3, 4, 10, 1, 9, 1, 30, 6])
    frames = [
        pl.DataFrame(
            {
                "table": "methods",
                "method": method,
                "session_id": np.arange(9),
                "user_id": [f"u{i}" for i in range(9)],
                "ranks": ranks[:, None].tolist(),
            }
        )
        for method, ranks in (("LangPTune-0", before), ("LangPTune", after))
    ]
    chosen = choose_examples(pl.concat(frames), "LangPTune")
    order = np.lexsort((np.arange(9), 1 / after - 1 / before))
    assert [row["session_id"] for row in chosen] == order[[0, 2, 4, 6, 8]].tolist()
    assert [row["before"] for row in chosen] == before[order[[0, 2, 4, 6, 8]]].tolist()
    first_three = pl.concat(frames).filter(pl.col("session_id") < 3)
    assert len(choose_examples(first_three, "LangPTune")) == 3


@pytest.mark.parametrize(
    ("before", "after", "p_value", "begins"),
    [
        (0.1, 0.2, 0.01, "LangPTune ranks better than LangPTune-0"),
        (0.2, 0.1, 0.00001, "LangPTune ranks worse than LangPTune-0"),
        (0.1, 0.2, 0.06, "No difference shown at the 5% level"),
    ],
)
def test_the_verdict_claims_what_the_test_shows(before, after, p_value, begins):
    methods = {
        "LangPTune-0": {"ndcg@20": {"mean": before, "p_value": None}},
        "LangPTune": {"ndcg@20": {"mean": after, "p_value": p_value}},
    }
    config = {"method": "LangPTune", "k": 20}
    sentence = verdict({"methods": methods, "config": config, "num_sessions": 9})
    assert sentence.startswith(begins)
    assert f"{before:.4f}" in sentence
    assert f"{after:.4f}" in sentence


def test_a_run_without_results_has_no_report(evaluated_run, tmp_path):
    (tmp_path / "config.toml").write_bytes((evaluated_run / "config.toml").read_bytes())
    with pytest.raises(RunError, match="evaluate"):
        write_report(tmp_path)


def test_the_running_mean_looks_back_an_eighth():
    values = np.random.default_rng(0).normal(size=40)
    expected = [values[max(0, i - 4) : i + 1].mean() for i in range(40)]
    assert running_mean(values) == pytest.approx(expected)
    assert running_mean([3.0, 1.0]).tolist() == [3.0, 1.0]


def test_a_chart_is_the_same_each_time():
    series = Series([1, 2, 3], [0.5, 0.25, 0.125])
    assert line_chart("a", "falls", series) == line_chart("a", "falls", series)
