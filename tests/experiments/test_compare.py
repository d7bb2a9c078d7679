"""`langptune compare`: rows, tests, resumption, and what it refuses."""

import html.parser
import json
import shutil
import time
from functools import partial

import numpy as np
import polars as pl
import pytest
from tests.processes import Forked
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.baselines.registry import METHODS, find_method
from langptune_rs.config import load_config, to_toml
from langptune_rs.evaluation.significance import bootstrap_interval, holm, paired_permutation_test
from langptune_rs.experiments.compare import fitting
from langptune_rs.experiments.compare.page import html as page_of
from langptune_rs.experiments.compare.page import latex
from langptune_rs.experiments.compare.settings import find_methods, grid_of, method_settings
from langptune_rs.experiments.compare.task import Failure, Ranked, Task, run_task
from langptune_rs.runs.folder import open_dataset, read_config
from langptune_rs.runs.results import read_results, read_scores

METRICS = ["ndcg@20", "mrr@20", "recall@20", "precision@20", "ndcg", "log_rank"]


def compare(run, output, *options, methods="Random,MP,EMB-0"):
    """The command on the data of a run, with its models."""
    return CliRunner().invoke(
        app,
        [
            *("compare", str(run / "data"), "--output", str(output), "--methods", methods, "--run", str(run)),
            *("--config", str(run / "config.toml"), "--json", *options),
        ],
    )


@pytest.fixture(scope="module")
def compared(noted_run, tmp_path_factory):
    """A comparison on the data of a run, and the run."""
    output = tmp_path_factory.mktemp("compared")
    result = compare(noted_run, output)
    assert result.exit_code == 0, result.output
    return json.loads((output / "comparison.json").read_text()), output, noted_run


def row(comparison, name):
    return next(row for row in comparison["rows"] if row["name"] == name)


def ndcg(row):
    return row["metrics"]["ndcg@20"]["mean"]


def test_every_method_ranks_the_sessions_that_the_run_was_evaluated_on(compared):
    comparison, _, run = compared
    results = read_results(run)
    assert comparison["num_sessions"] == results["num_sessions"]
    assert [row["name"] for row in comparison["rows"]] == [
        *("Random", "MP", "EMB-0", "LangPTune-0", "LangPTune", "LangPTune-0, sampled", "LangPTune, sampled")
    ]
    for name in ("MP", "EMB-0", "LangPTune-0", "LangPTune"):
        for metric in METRICS:
            ours = row(comparison, name)["metrics"][metric]
            theirs = results["methods"][name][metric]
            assert ours["mean"] == pytest.approx(theirs["mean"], abs=1e-12), (name, metric)
            assert [ours["low"], ours["high"]] == pytest.approx([theirs["low"], theirs["high"]], abs=1e-12)
    sampled = row(comparison, "LangPTune, sampled")["metrics"]["ndcg@20"]["mean"]
    assert sampled == pytest.approx(results["sampled"]["LangPTune"]["ndcg@20"]["mean"], abs=1e-12)


def test_seeds_are_averaged_for_each_session_before_the_tests(compared):
    comparison, output, _ = compared
    tables = [pl.read_parquet(output / "random" / f"seed-{seed}" / "per_user.parquet") for seed in range(3)]
    mean = np.mean([table["ndcg@20"].to_numpy() for table in tables], axis=0)
    popular = pl.read_parquet(output / "mp" / "seed-0" / "per_user.parquet")
    users = popular["user_id"].to_list()
    random = row(comparison, "Random")
    assert random["seeds"] == [0, 1, 2]
    assert row(comparison, "MP")["seeds"] == [0]  # nothing is drawn
    assert random["metrics"]["ndcg@20"]["mean"] == pytest.approx(mean.mean(), abs=1e-12)
    assert random["metrics"]["ndcg@20"]["seed_sd"] == pytest.approx(
        np.std([table["ndcg@20"].mean() for table in tables], ddof=1), abs=1e-12
    )
    low, high = bootstrap_interval(mean, clusters=users)
    assert (random["metrics"]["ndcg@20"]["low"], random["metrics"]["ndcg@20"]["high"]) == (low, high)
    test = next(t for t in comparison["tests"] if t["family"] == "Simple" and t["metric"] == "ndcg@20")
    better, other = (
        (popular["ndcg@20"].to_numpy(), mean) if test["method"] == "MP" else (mean, popular["ndcg@20"].to_numpy())
    )
    assert test["difference"] == pytest.approx((better - other).mean(), abs=1e-12)
    assert test["p"] == paired_permutation_test(better, other, clusters=users)


def test_p_values_are_corrected_within_their_family(compared):
    comparison, _, _ = compared
    for family in {test["family"] for test in comparison["tests"]}:
        for metric in METRICS:
            tests = [t for t in comparison["tests"] if t["family"] == family and t["metric"] == metric]
            assert [t["p_holm"] for t in tests] == pytest.approx(holm([t["p"] for t in tests]))
    of_profiles = [t for t in comparison["tests"] if t["family"] == "Profile-based" and t["metric"] == "ndcg@20"]
    assert len(of_profiles) == 6  # all pairs: the best is chosen by the same scores
    own = [r for r in comparison["rows"] if r["group"] == "Profile-based"]
    best = max(own, key=lambda r: r["metrics"]["ndcg@20"]["mean"])
    assert {t["method"] for t in of_profiles if t["is_best"]} == {best["name"]}
    assert all(t["difference"] >= 0 for t in of_profiles)


def test_what_is_done_is_kept_and_what_was_killed_goes_on(compared, tmp_path):
    comparison, output, run = compared
    again = tmp_path / "again"
    shutil.copytree(output, again)
    before = {path: path.stat().st_mtime_ns for path in again.glob("*/seed-*/results.json")}
    shutil.rmtree(again / "random" / "seed-1")
    (again / "random" / "seed-2" / "results.json").unlink()  # as a process leaves it that is killed while it writes
    (again / "comparison.json").unlink()
    result = compare(run, again)
    assert result.exit_code == 0, result.output
    without_times = [{k: v for k, v in r.items() if k not in COSTS} for r in comparison["rows"]]
    found = json.loads((again / "comparison.json").read_text())
    assert [{k: v for k, v in r.items() if k not in COSTS} for r in found["rows"]] == without_times
    assert found["tests"] == comparison["tests"]
    kept = [path for path in before if path.parent.parent.name != "random" or path.parent.name == "seed-0"]
    assert all(path.stat().st_mtime_ns == before[path] for path in kept)


COSTS = ("fit_seconds", "milliseconds", "peak_memory")


def test_the_pages_say_what_the_numbers_say(compared):
    comparison, output, _ = compared
    page, markdown, tex = ((output / f"comparison.{kind}").read_text() for kind in ("html", "md", "tex"))
    for shown in comparison["rows"]:
        mean = f"{shown['metrics']['ndcg@20']['mean']:.4f}"
        line = next(line for line in markdown.splitlines() if line.startswith(f"| {shown['name']} "))
        assert mean in line
        assert any(line.startswith(shown["name"]) and mean in line for line in tex.splitlines())
        assert mean in page
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 2  # with what the profiles rest on
    for table in tex.split(r"\end{tabular}"):
        assert len({line.count(" & ") for line in table.splitlines() if " & " in line}) <= 1
    assert rf"\textbf{{{max(map(ndcg, comparison['rows'])):.4f}}}" in tex


class _Structure(html.parser.HTMLParser):
    """What a screen reader goes by."""

    def __init__(self):
        super().__init__()
        self.tags, self.scopes, self.outside = [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        if tag == "th":
            self.scopes.append(values.get("scope"))
        self.outside += [v for k, v in attributes if k in ("src", "href") and not v.startswith("#")]


def test_the_page_has_the_structure_that_a_screen_reader_goes_by(compared):
    comparison, output, _ = compared
    found = _Structure()
    found.feed((output / "comparison.html").read_text())
    assert found.tags.count("h1") == 1
    assert found.tags.count("caption") == found.tags.count("table") == 3
    assert "main" in found.tags
    assert set(found.scopes) <= {"col", "row", "rowgroup"}
    assert found.scopes.count("row") >= len(comparison["rows"])
    assert not found.outside


def test_texts_are_escaped(compared):
    comparison, _, _ = compared
    hostile = json.loads(json.dumps(comparison))
    hostile["left_out"] = [{"method": "<script>alert(1)</script>", "reason": "<b>"}]
    hostile["rows"][0]["settings"] = {"path": "</dd><script>"}
    page = page_of(hostile)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert latex(hostile)


def test_a_method_that_does_not_exist_is_refused_with_all_there_are(noted_run, tmp_path):
    result = compare(noted_run, tmp_path, methods="EMB-0,Randon")
    assert result.exit_code == 2
    assert "there is no method 'Randon'. Did you mean 'Random'?" in result.output
    for name in METHODS:
        assert name in result.output


@pytest.mark.parametrize(
    ("options", "methods", "message"),
    [
        ((), "LangPTune", "give the folder of its run with --run"),
        ((), ",", "no method is named"),
        (("--set", "MP.k=3"), "MP", "There is no key 'k' of MP. It has nothing to set."),
        (("--set", "EMB-0.dim=none-such"), "EMB-0", "EMB-0.dim = 'none-such'"),
        (("--set", "EMB-0.dimm=3"), "EMB-0", "There is no key 'dimm' of EMB-0. Did you mean 'dim'?"),
        (("--set", "EMB-0=3"), "EMB-0", "is not of the form METHOD.key=value"),
        (("--split", "tests"), "MP", "There are no sessions in the split 'tests'"),
        (("--split", "train"), "MP", "methods have learned from the targets of the train split"),
        (("--set", "EASE.l2=3"), "MP", "EASE has settings, but is not among the methods that are fitted"),
        (("--set", "EASE.l2=-3"), "MP,EASE", "EASE.l2 = -3"),
        (("--set", "evaluation.k=10"), "MP", "was evaluated at k = 20, and the others at 10"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_way_out(noted_run, tmp_path, options, methods, message):
    result = compare(noted_run, tmp_path / "new", *options, methods=methods)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_a_run_of_other_data_is_refused(noted_run, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(noted_run, other)
    origin = json.loads((other / "origin.json").read_text())
    origin["data"]["content"] = dict.fromkeys(origin["data"]["content"], "0" * 64)
    (other / "origin.json").write_text(json.dumps(origin))
    result = compare(noted_run, tmp_path / "new", "--run", str(other), methods="MP")
    assert result.exit_code == 2
    assert f"{other} was trained on data with other" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("profile.temperature", "0.5", "began with another profile, so that they have no LangPTune-0 in common"),
        ("embedder.max_tokens", "64", "began with another embedder"),
    ],
)
def test_runs_that_began_otherwise_are_refused(noted_run, tmp_path, key, value, message):
    other = tmp_path / "other"
    shutil.copytree(noted_run, other)
    (other / "config.toml").write_text(to_toml(load_config(other / "config.toml", ["seed=1", f"{key}={value}"])))
    result = compare(noted_run, tmp_path / "new", "--run", str(other), methods="MP")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_other_methods_read_with_the_embedder_of_the_runs(noted_run, tmp_path):
    result = compare(noted_run, tmp_path / "new", "--set", "embedder.max_tokens=64", methods="EMB-0")
    assert result.exit_code == 2
    assert f"Give the recipe of the run: --config {noted_run / 'config.toml'}" in " ".join(result.output.split())
    assert compare(noted_run, tmp_path / "new", "--set", "embedder.max_tokens=64", methods="MP").exit_code == 0


def long_task(run, folder):
    """A method that trains for hours."""
    settings = {"hidden": 8, "num_heads": 1, "max_epochs": 10**6, "patience": 10**6}
    config = find_method("SASRec").Config(**settings).model_dump(mode="json")
    return Task(folder, "SASRec", config, 0, ranked_of(run))


def test_a_method_ends_with_the_command_that_was_killed(noted_run, tmp_path):
    """Else it would go on writing into the folder in which the next one works."""
    checkpoint = tmp_path / "task" / "checkpoint.pt"
    parent = Forked(partial(run_task, long_task(noted_run, tmp_path / "task")), {}, tmp_path / "log")
    try:
        deadline = time.monotonic() + 120
        while not checkpoint.is_file() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert checkpoint.is_file(), (tmp_path / "log").read_text()
    finally:
        parent.kill()
        parent.wait(30)
    time.sleep(1)
    before = checkpoint.stat().st_mtime_ns
    time.sleep(1)
    assert checkpoint.stat().st_mtime_ns == before


def test_a_run_twice_is_refused_before_anything_is_fitted(noted_run, tmp_path):
    result = compare(noted_run, tmp_path / "new", "--run", str(noted_run))
    assert result.exit_code == 2
    assert "are both LangPTune with the seed 0" in " ".join(result.output.split())
    assert not (tmp_path / "new" / "mp").exists()


def test_a_run_with_fewer_sessions_is_refused(noted_run, tmp_path):
    fewer = tmp_path / "fewer"
    shutil.copytree(noted_run, fewer)
    scores, results = pl.read_parquet(fewer / "per_user.parquet"), read_results(fewer)
    left = scores.filter(pl.col("session_id") != scores["session_id"][0])
    left.write_parquet(fewer / "per_user.parquet")
    (fewer / "results.json").write_text(json.dumps(results | {"num_sessions": results["num_sessions"] - 1}))
    result = CliRunner().invoke(
        app,
        [
            *("compare", str(noted_run / "data"), "--output", str(tmp_path / "new"), "--methods", "MP"),
            *("--run", str(fewer), "--config", str(noted_run / "config.toml")),
        ],
    )
    assert result.exit_code == 2
    assert f"--set evaluation.max_sessions={results['num_sessions'] - 1}" in result.output


def test_a_folder_of_another_comparison_is_refused(compared, tmp_path):
    _, output, run = compared
    other = tmp_path / "other"
    shutil.copytree(output, other)
    result = compare(run, other, "--split", "validation", methods="MP")
    assert result.exit_code == 2
    assert f"{run} has no results on the validation split" in " ".join(result.output.split())
    task = other / "mp" / "seed-0" / "task.json"
    task.write_text(task.read_text().replace('"k": 20', '"k": 10'))
    for methods in ("MP", "MP,all"):
        result = compare(run, other, methods=methods)
        assert result.exit_code == 2
        assert "holds MP with another ranked" in result.output


def ranked_of(run):
    dataset = open_dataset(read_config(run), run)
    return Ranked(run / "data", dataset.content, "test", None, 0, 20)


def test_a_task_that_fails_says_why_and_is_tried_again(noted_run, tmp_path):
    ranked = ranked_of(noted_run)
    gone = Ranked(tmp_path / "gone", ranked.content, "test", None, 0, 20)
    failure = run_task(Task(tmp_path / "task", "MP", {}, 0, gone))
    assert isinstance(failure, Failure)
    assert "gone" in failure.reason
    shutil.copytree(noted_run / "data", tmp_path / "gone")
    outcome = run_task(Task(tmp_path / "task", "MP", {}, 0, gone))
    assert not isinstance(outcome, Failure)
    assert outcome.results["peak_memory"] > 1 << 20


def test_nothing_is_chosen_before_every_setting_was_tried(noted_run, tmp_path, monkeypatch):
    """A setting that fails for a passing reason may be the best one."""
    ranked, config = ranked_of(noted_run), read_config(noted_run)
    failing = {50.0}

    def run_most(task):
        return Failure(task, "out of memory") if task.settings["l2"] in failing else run_task(task)

    monkeypatch.setattr(fitting, "run_task", run_most)
    arguments = ([find_method("EASE")], config, {}, ranked, open_dataset(config, noted_run), (0,), tmp_path)
    rows, left_out, _ = fitting.fit_methods(*arguments, is_all=True)
    assert not rows
    assert "l2 = 50.0 failed on validation: out of memory" in left_out[0].reason
    assert not (tmp_path / "ease" / "seed-0").exists()
    failing.clear()
    rows, left_out, _ = fitting.fit_methods(*arguments, is_all=True)
    assert [row.method for row in rows] == ["EASE"]


def test_a_seed_that_fails_is_said_and_the_others_go_on(noted_run, tmp_path, monkeypatch):
    ranked = ranked_of(noted_run)

    def run_most(task):
        return Failure(task, "out of memory") if task.seed == 1 else run_task(task)

    monkeypatch.setattr(fitting, "run_task", run_most)
    rows, left_out, _ = fitting.fit_methods(
        [find_method("Random")],
        read_config(noted_run),
        {},
        ranked,
        open_dataset(read_config(noted_run), noted_run),
        (0, 1, 2),
        tmp_path,
        is_all=False,
    )
    assert rows[0].seeds == (0, 2)
    assert rows[0].failures == {1: "out of memory"}
    assert not left_out


def test_damaged_results_are_named(compared, tmp_path):
    _, output, run = compared
    other = tmp_path / "other"
    shutil.copytree(output, other)
    path = other / "mp" / "seed-0" / "per_user.parquet"
    table = pl.read_parquet(path)
    table.with_columns(pl.col("ndcg@20") * 0.5).write_parquet(path)
    result = compare(run, other)
    assert result.exit_code == 2
    assert "mp/seed-0 is damaged" in "".join(result.output.split("\n"))


def test_all_are_the_methods_that_need_no_run():
    methods, is_all = find_methods("all")
    assert is_all
    assert {m.name for m in methods} == {n for n, m in METHODS.items() if not m.needs & {"policy", "trained policy"}}
    assert [m.name for m in find_methods("mp, RANDOM")[0]] == ["Random", "MP"]


def test_a_setting_of_the_user_is_not_tuned():
    for method in find_methods("all")[0]:
        settings = grid_of(method, {})
        assert len(settings) <= 6
        for field, values in method.grid.items():
            assert {choice[field] for choice in settings} == set(values)
            assert all(field not in choice for choice in grid_of(method, {field: values[0]}))
        recipe = load_config("quickstart")
        for choice in settings:
            assert method_settings(method, recipe, choice) is not None


def test_scores_of_runs_are_those_of_their_files(compared):
    comparison, _, run = compared
    scores = read_scores(run)
    own = scores.filter(pl.col("table") == "methods", pl.col("method") == "LangPTune")
    assert row(comparison, "LangPTune")["metrics"]["log_likelihood"]["mean"] == pytest.approx(
        own["log_likelihood"].mean()
    )


def test_the_embedder_alone_is_trained_as_long_as_within_langptune():
    emb_cl = find_method("EMB-CL")
    paper = method_settings(emb_cl, load_config("gemma-2b"), {})
    assert (paper.iterations, paper.steps, paper.batch_size, paper.temperature) == (5, 800, 256, 0.1)
    assert paper.embedder.model == "mixedbread-ai/mxbai-embed-large-v1"
    small = method_settings(emb_cl, load_config("quickstart"), {"learning_rate": 1e-4})
    assert (small.iterations, small.steps, small.batch_size, small.learning_rate) == (1, 119, 128, 1e-4)
    assert small.popularity_correction
