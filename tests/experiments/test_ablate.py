"""`langptune ablate`: its runs, its numbers, what it writes, and what it refuses."""

import html.parser
import json
import re

import numpy as np
import polars as pl
import pytest
from matplotlib.image import imread
from tests.experiments.tiny import make_models, tiny_config, write_source
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.config import load_config, to_toml
from langptune_rs.errors import InputError
from langptune_rs.evaluation.significance import bootstrap_interval, holm, paired_permutation_test
from langptune_rs.experiments.ablate.ablations import (
    ABLATIONS,
    Limits,
    check_suits,
    find_ablation,
    folder_name,
    folders_of,
    limits_of,
    overrides_of,
    own_value,
    profiles_of,
    values_of,
)
from langptune_rs.experiments.ablate.figures import LOOKS, PAPER, draw, series_of
from langptune_rs.experiments.ablate.page import html as page_of
from langptune_rs.experiments.ablate.page import latex, markdown
from langptune_rs.experiments.seeds import compare_seeds
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.metrics_log import read_metrics
from langptune_rs.runs.results import read_profiles, read_results

SHORT = ("iterations=1", "contrastive.steps=1", "rlso.steps=2", "evaluation.validation_sessions=0")
METRICS = ["ndcg@20", "mrr@20", "recall@20", "precision@20", "ndcg", "log_likelihood", "log_rank"]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """A recipe of tiny models, with one step of the embedder and two of the policy."""
    folder = tmp_path_factory.mktemp("recipe")
    config = tiny_config(*make_models(folder), write_source(folder / "source"), "LangPTune", {"samples": 1})
    path = folder / "tiny.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    return path


def ablate(recipe, what, output, *options, settings=SHORT):
    """The command with a tiny recipe."""
    given = [part for setting in settings for part in ("--set", setting)]
    return CliRunner().invoke(app, ["ablate", what, "--config", str(recipe), "--output", str(output), *given, *options])


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_is_done_is_kept_and_what_was_interrupted_goes_on(ablated, recipe):
    ablation, output = ablated
    (output / "6" / "seed-1" / "results-validation.json").unlink()  # as a kill within the evaluation leaves it
    (output / "ablation.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/seed-*/*")}
    result = ablate(recipe, "profile-length", output, "--values", "6,3", "--seeds", "2", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads((output / "ablation.json").read_text()) == ablation
    assert json.loads(result.stdout.splitlines()[-1]) == ablation
    evaluated_again = {path for path in before if path.exists() and path.stat().st_mtime_ns != before[path]}
    assert {path.parent for path in evaluated_again if path.name != ".lock"} == {output / "6" / "seed-1"}
    assert (output / "6" / "seed-1" / "trained").stat().st_mtime_ns == before[output / "6" / "seed-1" / "trained"]


@pytest.mark.slow
def test_a_folder_of_another_recipe_is_refused_with_what_differs(ablated, recipe):
    _, output = ablated
    result = ablate(recipe, "profile-length", output, settings=(*SHORT, "rlso.eta=0.5"))
    assert result.exit_code == 2
    assert "eta = 0.5" in result.output
    assert "choose another --output" in " ".join(result.output.split())


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_page_has_the_structure_that_a_screen_reader_goes_by(ablated):
    _, output = ablated
    found = _Structure()
    found.feed((output / "ablation.html").read_text())
    assert found.tags.count("h1") == found.tags.count("main") == 1
    assert found.tags.count("caption") == found.tags.count("table") == 2 + 2 + 3
    assert set(found.scopes) == {"col", "row"}
    assert [role for role, _ in found.labels] == ["img", "img"]
    assert "NDCG@20 of LangPTune, greedy: 12: " in found.labels[0][1]
    assert not found.outside


@pytest.mark.slow
def test_the_pages_say_what_the_numbers_say(ablated):
    ablation, output = ablated
    page, text, tex = ((output / f"ablation.{kind}").read_text() for kind in ("html", "md", "tex"))
    assert text == markdown(ablation)
    for row in ablation["rows"]:
        mean = f"{row['metrics']['greedy']['ndcg@20']['mean']:.4f}"
        assert any(line.startswith(f"| {row['label']}") and mean in line for line in text.splitlines())
        assert any(line.startswith(f"${row['label']}$ & ${mean}$") for line in tex.splitlines()), tex
        assert mean in page
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == 1
    assert len({line.count(" & ") for line in tex.splitlines() if " & " in line}) == 1


@pytest.mark.slow
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


@pytest.mark.slow
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
    assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == len(lines) == len(LOOKS)
    series = series_of(ablation, "ndcg@20")
    for container, expected in zip(axes.containers, series, strict=True):
        assert container.lines[0].get_ydata() == pytest.approx([mean for mean, _, _ in expected.points])
        for bar, (_, low, high) in zip(container.lines[2][0].get_segments(), expected.points, strict=True):
            assert bar[:, 1] == pytest.approx([low, high]), "error bars are the 95% intervals"


@pytest.mark.slow
def test_texts_stand_down_the_axis_and_have_their_intervals(ablated):
    ablation, _ = ablated
    of_rewards = json.loads(json.dumps(ablation)) | {"name": "reward", "title": "Reward"}
    (axes,) = draw(of_rewards, ["ndcg@20"], PAPER).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["12", "6", "3"]
    styles = {str(container.lines[2][0].get_linestyle()) for container in axes.containers}
    assert len(styles) == len(axes.containers)


@pytest.mark.slow
def test_policies_are_trained_from_equally_many_profiles_under_one_embedder(recipe, tmp_path):
    options = ("--policy-only", "--values", "2,4", "--seeds", "2")
    settings = (*SHORT, "rlso.steps=4", "rlso.epochs=1")
    result = ablate(recipe, "num-profiles", tmp_path, *options, settings=settings)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"data", "embedder", "2", "4"}
    assert "rlso" not in {line["phase"] for line in read_metrics(tmp_path / "embedder")}
    written = {}
    for run in tmp_path.glob("[24]/seed-*"):
        config = read_config(run)
        assert config.method == "LangPTune-RLSO"
        assert config.embedder.model == str(tmp_path / "embedder" / "embedder")
        steps = [line for line in read_metrics(run) if line["phase"] == "rlso"]
        written[run.parent.name, run.name] = len(steps) * config.rlso.batch_size * config.rlso.num_profiles
    assert set(written.values()) == {4 * 8 * 2}
    assert len(written) == 4
    told = re.findall(r"LangPTune-0: profiles: (\d+)/\1,", result.stderr)
    assert len(told) == 2, "the untrained policy writes once a seed"
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert {row["gain"]["over"] for row in found["rows"]} == {"LangPTune-0"}
    assert not list(tmp_path.glob("*/seed-*/results.json")), "the test split is not read"


@pytest.mark.slow
def test_a_share_of_the_sessions_is_all_that_training_knows(recipe, tmp_path):
    settings = (*SHORT, "contrastive.history_steps=6", "method=LangPTune-CL")
    result = ablate(recipe, "train-ratio", tmp_path, "--values", "100,10", settings=settings)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert [row["label"] for row in found["rows"]] == ["100%", "10%"]
    assert read_config(tmp_path / "10" / "seed-0").data.train_share == 0.1
    losses = {
        value: [
            line["contrastive/loss"] for line in read_metrics(tmp_path / value / "seed-0") if line["phase"] == "history"
        ]
        for value in ("100", "10")
    }
    assert len(losses["10"]) == len(losses["100"]) == 6
    assert losses["10"] != losses["100"], "steps on histories draw from the share too"


def config_of(*overrides):
    return load_config("quickstart", overrides)


def test_defaults_are_those_of_the_paper_scaled_and_hold_the_recipes_own():
    config = config_of()
    found = {
        name: values_of(ablation, None, config, limits_of(ablation, config, 16_377))
        for name, ablation in ABLATIONS.items()
    }
    assert found["profile-length"] == ([64, 32, 16, 8], 64)
    assert found["train-ratio"] == ([100, 10, 1], 100)
    assert found["iterations"] == ([1, 2, 3], 1)
    assert found["num-profiles"] == ([2, 4, 6, 8], 6)
    assert found["epochs"] == ([1, 2, 4], 1)
    assert found["num-targets"] == ([1, 3, 6], 6)
    assert found["objective"] == (["rlso", "rloo"], "rlso")
    assert found["standardize"] == (["batch", "session", "leave-one-out"], "session")
    values, own = found["reward"]
    assert own == values[0] == config.rlso.reward
    assert len(values) == 5


def test_every_value_of_every_ablation_is_another_run_of_equally_many_profiles():
    config = config_of()
    for ablation in ABLATIONS.values():
        values, own = values_of(ablation, None, config, limits_of(ablation, config, 16_377))
        fixed = [f"{key}={json.dumps(value)}" for key, value in ablation.with_all.items()]
        configs = {value: config_of(*fixed, *overrides_of(ablation, value, config)) for value in values}
        assert len({to_toml(of_value) for of_value in configs.values()}) == len(values)
        assert len(set(folders_of(values).values())) == len(values)
        if not fixed:
            assert configs[own] == config
        if ablation.key.startswith("rlso."):
            for of_value in configs.values():
                assert 0.9 * profiles_of(config) < profiles_of(of_value) <= profiles_of(config)


def test_a_default_that_the_data_are_too_few_for_is_left_out():
    ablation, config = find_ablation("train-ratio"), config_of()
    assert values_of(ablation, None, config, limits_of(ablation, config, 2_265))[0] == [100, 10]


@pytest.mark.parametrize(
    ("what", "values", "message"),
    [
        ("profile-length", "64,0", "profile-length cannot be '0': it is a whole number from 1 on."),
        ("profile-length", "64,many", "profile-length cannot be 'many': it is a whole number from 1 on."),
        ("profile-length", "8,,", "profile-length cannot be '': it is a whole number from 1 on."),
        ("num-profiles", "1", "it is a whole number from 2 to 108: with more, the 1,728 profiles of an iteration"),
        ("train-ratio", "0.5", "it is a percentage from 0.79 to 100: the largest batch has 128 of the 16,377 train"),
        ("train-ratio", "101", "it is a percentage from 0.79 to 100"),
        ("train-ratio", "nan%", "it is a percentage from 0.79 to 100"),
        ("objective", "rlso,ppo", "objective cannot be 'ppo': it is one of rlso, rloo."),
        ("standardize", "all", "it is one of batch, session, leave-one-out."),
        ("iterations", "2,2", "--values has 2 twice"),
        ("iterations", "1", "has no value but the recipe's own, 1. Give others with --values"),
    ],
)
def test_values_that_cannot_be_are_refused_with_the_range(what, values, message):
    ablation, config = find_ablation(what), config_of()
    with pytest.raises(InputError) as raised:
        values_of(ablation, values, config, limits_of(ablation, config, 16_377))
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("what", "options", "message"),
    [
        ("profile-lenght", (), "there is no ablation 'profile-lenght'. Did you mean 'profile-length'?"),
        ("reward", ("--values", "ndcg,rank"), "there is no term 'rank'"),
        ("profile-length", ("--policy-only",), "changes what the embedder learns too. Leave it out"),
        ("num-profiles", ("--set", "method=LangPTune-CL"), "trains no policy"),
        ("reward", ("--values", "ndcg+0.5 mrr,ndcg + 0.5 mrr"), "are one value in two spellings"),
    ],
)
def test_what_cannot_be_ablated_is_refused_before_anything_is_trained(recipe, tmp_path, what, options, message):
    result = ablate(recipe, what, tmp_path / "new", *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not list((tmp_path / "new").glob("*/seed-*"))


def test_the_users_penalty_is_kept_in_an_ablation_of_the_reward(recipe, tmp_path):
    from langptune_rs.experiments.ablate.running import Plan

    ablation, overrides = find_ablation("reward"), ("rlso.overlong_penalty=0.7",)
    for given, penalty in (((), 0.0), (overrides, 0.7)):
        config = load_config("quickstart", given)
        plan = Plan(ablation, "quickstart", given, config, ("ndcg",), own_value(ablation, config), (0,), "test", False)
        assert plan.config_of("ndcg", 0, tmp_path).rlso.overlong_penalty == penalty


def test_a_policy_alone_goes_with_what_the_policy_learns_from():
    config = config_of()
    of_policy = {name for name, ablation in ABLATIONS.items() if ablation.is_of_policy}
    assert of_policy == {"num-profiles", "epochs", "num-targets", "reward", "objective", "standardize"}
    for name in of_policy:
        check_suits(ABLATIONS[name], config, policy_only=True)


def test_folders_are_named_after_values():
    assert folder_name("ndcg + 0.05 log_softmax") == "ndcg-plus-0.05-log_softmax"
    assert folder_name("ndcg - 0.05 log_softmax") == "ndcg-minus-0.05-log_softmax"
    assert folder_name(0.1) == "0.1"
    assert folder_name(10.0) == folder_name(10) == "10"
    assert Limits(1).hold(1)
