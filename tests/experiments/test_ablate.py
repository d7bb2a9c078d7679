"""What `langptune ablate` writes: its runs, its numbers, its pages and figures; and that it goes on."""

import html.parser
import json
import shutil

import numpy as np
import polars as pl
import pytest
from matplotlib.image import imread
from tests.experiments.tiny_ablations import SHORT, ablate, make_recipe

from langptune_rs.data import load
from langptune_rs.errors import TrainingError
from langptune_rs.evaluation.significance import bootstrap_interval, holm, paired_permutation_test
from langptune_rs.experiments.ablate import running
from langptune_rs.experiments.ablate.beside import MOST
from langptune_rs.experiments.ablate.figures import LOOKS, PAPER, draw, series_of
from langptune_rs.experiments.ablate.page import html as page_of
from langptune_rs.experiments.ablate.page import latex, markdown
from langptune_rs.experiments.compare.from_runs import rows_of_runs
from langptune_rs.experiments.compare.guards import guard_rows
from langptune_rs.experiments.compare.task import Ranked
from langptune_rs.experiments.seeds import compare_seeds
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.metrics_log import read_metrics
from langptune_rs.runs.results import read_profiles, read_results

pytestmark = pytest.mark.slow

METRICS = ["ndcg@20", "mrr@20", "recall@20", "precision@20", "ndcg", "log_likelihood", "log_rank"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return make_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.fixture(scope="module")
def ablated(recipe, tmp_path_factory):
    """The profile length with three values and two seeds: what was written, and its folder."""
    output = tmp_path_factory.mktemp("ablated")
    result = ablate(recipe, "profile-length", output, "--values", "3,6", "--seeds", "2")
    assert result.exit_code == 0, result.output
    return json.loads((output / "ablation.json").read_text()), output


def scores(output, value, metric, *, method="LangPTune", table="methods"):
    """The scores of a value by session, averaged over its seeds, from the files of its runs; and the users."""
    tables = [
        pl.read_parquet(output / value / f"seed-{seed}" / "per_user-validation.parquet")
        .filter(pl.col("table") == table, pl.col("method") == method)
        .sort("session_id")
        for seed in (0, 1)
    ]
    return np.mean([table[metric].to_numpy() for table in tables], axis=0), tables[0]["user_id"].to_list()


def test_each_value_and_seed_is_an_ordinary_run(ablated):
    ablation, output = ablated
    assert [row["label"] for row in ablation["rows"]] == ["12", "6", "3"]  # as in the paper, and the recipe's own too
    assert [row["is_own"] for row in ablation["rows"]] == [True, False, False]
    for row in ablation["rows"]:
        assert row["seeds"] == [0, 1]
        for run, seed in zip(row["runs"], row["seeds"], strict=True):
            config = read_config(output / run)
            assert (config.profile.max_tokens, config.seed) == (row["value"], seed)
            written = read_profiles(output / run, "validation")
            assert written["tokens"].max() <= row["value"]
    assert not list(output.glob("*/seed-*/results.json")), "the test split is not read"
    sources = {read_config(run.parent).data.source for run in output.glob("*/seed-*/trained")}
    assert sources == {str(output / "data")}, "the data are prepared once"


def test_the_page_says_where_the_own_value_is_of_the_command_and_not_of_the_recipe(ablated):
    ablation, _ = ablated
    assert "is that of --set" not in markdown(ablation)
    set_by_user = {**ablation, "overrides": [*ablation["overrides"], "profile.max_tokens = 12"]}
    assert "The recipe's own value, 12, is that of --set profile.max_tokens." in markdown(set_by_user)


def test_tiny_models_differ_so_that_the_numbers_below_say_something(ablated):
    ablation, _ = ablated
    for row in ablation["rows"]:
        assert row["metrics"]["greedy"] != row["untrained"]["greedy"]
        assert row["metrics"]["greedy"] != row["metrics"]["sampled"]
    gains = [found["difference"] for row in ablation["rows"] for found in row["gain"]["sampled"].values()]
    assert any(gains), "the policy has learned to write something else"


def test_means_and_differences_are_those_of_the_files_of_the_runs(ablated):
    ablation, output = ablated
    own, *others = ablation["rows"]
    assert own["difference"] is None
    for decoding, table in (("greedy", "methods"), ("sampled", "sampled")):
        for metric in METRICS:
            of_own, users = scores(output, "12", metric, table=table)
            for row in ablation["rows"]:
                mean, _ = scores(output, str(row["value"]), metric, table=table)
                found = row["metrics"][decoding][metric]
                assert found["mean"] == pytest.approx(mean.mean(), abs=1e-12)
                assert (found["low"], found["high"]) == bootstrap_interval(mean, clusters=users)
            p_values = []
            for row in others:
                mean, _ = scores(output, str(row["value"]), metric, table=table)
                found = row["difference"][decoding][metric]
                assert found["difference"] == pytest.approx((mean - of_own).mean(), abs=1e-12)
                assert tuple(found["interval"]) == bootstrap_interval(mean - of_own, clusters=users)
                assert found["p"] == paired_permutation_test(mean, of_own, clusters=users)
                p_values.append(found["p"])
            assert [row["difference"][decoding][metric]["p_holm"] for row in others] == holm(p_values)
    before, _ = scores(output, "6", "ndcg@20", method="LangPTune-0")
    assert others[0]["untrained"]["greedy"]["ndcg@20"]["mean"] == pytest.approx(before.mean(), abs=1e-12)


def test_the_gain_is_that_over_the_initial_policy_with_the_same_embedder(ablated):
    ablation, output = ablated
    for row in ablation["rows"]:
        assert row["gain"]["over"] == "trained embedder, initial policy"
        compared = compare_seeds([output / run for run in row["runs"]], "validation")["comparisons"]
        for decoding in ("greedy", "sampled"):
            for metric in METRICS:
                wanted = next(
                    c
                    for c in compared
                    if (c["method"], c["other"], c["decoding"], c["metric"])
                    == ("LangPTune", row["gain"]["over"], decoding, metric)
                )
                found = row["gain"][decoding][metric]
                assert {key: wanted[key] for key in found} == found
                assert len(found["by_seed"]) == 2


def test_costs_and_looks_are_means_over_the_seeds(ablated):
    ablation, output = ablated
    for row in ablation["rows"]:
        runs = [output / run for run in row["runs"]]
        logs, results = [read_metrics(run) for run in runs], [read_results(run, "validation") for run in runs]
        seconds = [sum(line.get("time/seconds", 0) for line in log) for log in logs]
        assert row["minutes"] == pytest.approx(np.mean(seconds) / 60)
        last = [next(line for line in log if line["phase"] == "rlso")["profile/repetition"] for log in logs]
        assert row["repetition"] == pytest.approx(np.mean(last))
        for decoding, part in (("greedy", "profiles"), ("sampled", "sampled_profiles")):
            overlong = [found[part]["LangPTune"]["overlong_rate"] for found in results]
            assert row["overlong"][decoding] == pytest.approx(np.mean(overlong))


def test_what_is_done_is_kept_and_what_was_interrupted_goes_on(ablated, recipe):
    ablation, output = ablated
    (output / "6" / "seed-1" / "results-validation.json").unlink()  # as a kill within the evaluation leaves it
    for name in ("trained", "results-validation.json"):
        (output / "3" / "seed-0" / name).unlink()  # as a kill leaves it while the models are saved
    (output / "ablation.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/seed-*/*")}
    result = ablate(recipe, "profile-length", output, "--values", "6,3", "--seeds", "2", "--json")
    assert result.exit_code == 0, result.output
    ablation = ablation | {"command": ablation["command"].replace("3,6", "6,3")}
    assert json.loads((output / "ablation.json").read_text()) == ablation
    assert json.loads(result.stdout.splitlines()[-1]) == ablation
    evaluated_again = {path for path in before if path.exists() and path.stat().st_mtime_ns != before[path]}
    again = {output / "6" / "seed-1", output / "3" / "seed-0"}
    assert {path.parent for path in evaluated_again if path.name != ".lock"} == again
    assert (output / "6" / "seed-1" / "trained").stat().st_mtime_ns == before[output / "6" / "seed-1" / "trained"]


def test_a_run_that_cannot_be_trained_is_told_and_the_others_go_on(ablated, recipe, tmp_path, monkeypatch):
    _, output = ablated
    again = tmp_path / "again"
    shutil.copytree(output, again, ignore=shutil.ignore_patterns("data"))
    (again / "data").symlink_to(output / "data")

    def failing(bad):
        def trained(run, config):
            if str(run.relative_to(again)) in bad:
                raise TrainingError("the <loss> is nan")
            return run

        return trained

    def ablation():
        monkeypatch.setattr(running, "trained", failing(bad))
        result = ablate(recipe, "profile-length", again, "--values", "3,6", "--seeds", "2", "--no-guards")
        return result, json.loads((again / "ablation.json").read_text())

    bad = {"6/seed-0", "3/seed-0", "3/seed-1"}
    result, found = ablation()
    assert result.exit_code == 0, result.output
    assert [(row["label"], row["seeds"]) for row in found["rows"]] == [("12", [0, 1]), ("6", [1])]
    assert [(one["value"], one["seed"]) for one in found["failures"]] == [("6", 0), ("3", 0), ("3", 1)]
    assert "3, seed 1, failed: the <loss> is nan" in markdown(found)
    assert "<li>3, seed 1, failed: the &lt;loss&gt; is nan</li>" in page_of(found)
    assert {profile["label"] for profile in found["examples"][0]["profiles"]} == {"LangPTune-0", "12", "6"}

    (again / "ablation.json").write_text("{}")
    bad = {"12/seed-0", "12/seed-1"}
    result, found = ablation()
    assert result.exit_code == 2
    assert "12 is the recipe's own value, and none of its runs could be trained" in " ".join(result.output.split())
    assert "the <loss> is nan" in result.output
    assert not found


def test_the_page_has_the_command_that_makes_it(ablated):
    ablation, output = ablated
    assert ablation["command"].startswith(f"langptune ablate profile-length --output {output} --values 3,6 --config ")
    assert ablation["command"].endswith(" --set logging.tensorboard=false --seeds 2")
    assert f"<code>{ablation['command'].replace('&', '&amp;')}</code>" in page_of(ablation)


def test_a_folder_of_another_recipe_is_refused_with_what_differs(ablated, recipe):
    _, output = ablated
    result = ablate(recipe, "profile-length", output, settings=(*SHORT, "rlso.eta=0.5"))
    assert result.exit_code == 2
    assert "eta = 0.5" in result.output
    assert "choose another --output" in " ".join(result.output.split())


def test_the_examples_are_what_each_policy_wrote_for_one_session(ablated):
    ablation, output = ablated
    assert len(ablation["examples"]) == 3
    targets = []
    for example in ablation["examples"]:
        assert [profile["label"] for profile in example["profiles"]] == ["LangPTune-0", "12", "6", "3"]
        assert len(example["history"]) == 4
        for profile in example["profiles"]:
            name, folder = (
                ("LangPTune-0", "12") if profile["label"] == "LangPTune-0" else ("LangPTune", profile["label"])
            )
            run = output / folder / "seed-0"
            ranks = pl.read_parquet(run / "per_user-validation.parquet").filter(
                pl.col("table") == "methods", pl.col("method") == name, pl.col("user_id") == example["user"]
            )
            ids = [id_ for id_, (rank,) in ranks.select("session_id", "ranks").iter_rows() if rank == profile["rank"]]
            texts = read_profiles(run, "validation").filter(
                pl.col("policy") == name, pl.col("decoding") == "greedy", pl.col("session_id").is_in(ids)
            )
            assert profile["text"] in texts["text"].to_list()
        targets.append(example["profiles"][1]["rank"])
    assert targets == sorted(targets), "from the first quarter to the third"


class _Structure(html.parser.HTMLParser):
    """What a screen reader goes by."""

    def __init__(self):
        super().__init__()
        self.tags, self.scopes, self.outside, self.labels = [], [], [], []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        if tag == "th":
            self.scopes.append(values.get("scope"))
        if tag == "svg":
            self.labels.append((values.get("role"), values.get("aria-label")))
        self.outside += [v for k, v in attributes if k in ("src", "href", "xlink:href") and not v.startswith("#")]


def test_the_page_has_the_structure_that_a_screen_reader_goes_by(ablated):
    _, output = ablated
    found = _Structure()
    found.feed((output / "ablation.html").read_text())
    assert found.tags.count("h1") == found.tags.count("main") == 1
    assert found.tags.count("caption") == found.tags.count("table") == 2 + 2 + 2 + 3
    assert set(found.scopes) == {"col", "row"}
    assert [role for role, _ in found.labels] == ["img", "img"]
    for series in ("LangPTune, greedy", "LangPTune, sampled", "LangPTune-0, greedy", "LangPTune-0, sampled"):
        assert f"NDCG@20 of {series}: 12: " in found.labels[0][1]
    assert not found.outside


def test_the_pages_say_what_the_numbers_say(ablated):
    ablation, output = ablated
    page, text, tex = ((output / f"ablation.{kind}").read_text() for kind in ("html", "md", "tex"))
    assert text == markdown(ablation)
    for row in ablation["rows"]:
        mean = f"{row['metrics']['greedy']['ndcg@20']['mean']:.4f}"
        assert any(line.startswith(f"| {row['label']}") and mean in line for line in text.splitlines())
        assert any(line.startswith(f"${row['label']}$ & ${mean}$") for line in tex.splitlines()), tex
        assert mean in page
        before = f"{row['untrained']['greedy']['ndcg@20']['mean']:.4f}"
        assert any(line.startswith(f"| {row['label']}") and before in line for line in text.splitlines())
        assert before in page
    assert "| LangPTune-0, NDCG@20 |" in " ".join(text.split())
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1
    assert len({line.count(" & ") for line in tex.splitlines() if " & " in line}) == 1


def test_what_the_profiles_rest_on_stands_beside_every_value(ablated):
    """Among it what the titles of the history have more than a profile of each length."""
    ablation, output = ablated
    page, text = ((output / f"ablation.{kind}").read_text() for kind in ("html", "md"))
    for row in ablation["rows"]:
        config = read_config(output / row["runs"][0])
        ranked = Ranked(output / "data", ablation["content"], ablation["split"], None, config.data.seed, 20)
        runs = [output / run for run in row["runs"]]
        rows, sessions = rows_of_runs(runs, ranked, None)
        dataset = load(output / "data")
        for found in guard_rows(rows, sessions, ranked, dataset, output / "guards"):
            if found.method != "LangPTune":
                continue
            shown = row["guards"][found.decoding]
            assert shown["titles"]["mean"] == pytest.approx(found.guards.titles.mean(), abs=1e-12)
            lost = found.scores["ndcg@20"] - found.guards.titles
            assert shown["titles"]["difference"] == pytest.approx(lost.mean(), abs=1e-12)
            assert f"{shown['titles']['mean']:.4f}" in page
            assert f"{shown['titles']['mean']:.4f}" in text.partition("## What the profiles rest on")[2]


def test_texts_are_escaped(ablated):
    ablation, _ = ablated
    hostile = json.loads(json.dumps(ablation))
    hostile["examples"][0]["profiles"][0]["text"] = "<script>alert(1)</script>"
    hostile["examples"][0]["target"] = "</caption><script>"
    hostile["rows"][1]["label"] = hostile["rows"][1]["settings"][0] = "<script>"
    page = page_of(hostile)
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert latex(hostile)


def test_the_figures_are_written_and_tell_series_apart_without_colour(ablated):
    ablation, output = ablated
    for name in ("ablation", "ablation-all"):
        pixels = imread(output / f"{name}.png")
        assert pixels.ndim == 3
        assert pixels.std() > 0.01
        svg = (output / f"{name}.svg").read_text()
        assert "NDCG@20" in svg
        assert "LangPTune, greedy" in svg
    figure = draw(ablation, ["ndcg@20"], PAPER)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["12", "6", "3"]
    lines = [container.lines[0] for container in axes.containers]
    assert len(lines) == 4
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == len(lines)
    assert len(set(LOOKS)) == len(LOOKS) == len(lines) + MOST, "and those of other methods beside"
    series = series_of(ablation, "ndcg@20")
    for container, expected in zip(axes.containers, series, strict=True):
        assert container.lines[0].get_ydata() == pytest.approx([mean for mean, _, _ in expected.points])
        for bar, (_, low, high) in zip(container.lines[2][0].get_segments(), expected.points, strict=True):
            assert bar[:, 1] == pytest.approx([low, high]), "error bars are the 95% intervals"


def test_texts_stand_down_the_axis_and_have_their_intervals(ablated):
    ablation, _ = ablated
    of_rewards = json.loads(json.dumps(ablation)) | {"name": "reward", "title": "Reward"}
    (axes,) = draw(of_rewards, ["ndcg@20"], PAPER).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["12", "6", "3"]
    styles = {str(container.lines[2][0].get_linestyle()) for container in axes.containers}
    assert len(styles) == len(axes.containers)
