"""Runs of several seeds compared as one: averaged for each session first, and refused where more differs."""

import json
import shutil

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.config import to_toml
from langptune_rs.errors import RunError
from langptune_rs.evaluation.significance import bootstrap_interval, paired_permutation_test
from langptune_rs.experiments.report.tables import comparisons_markdown
from langptune_rs.experiments.seeds import compare_seeds
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.results import read_results

WRITTEN = ("config.toml", "origin.json", "results.json", "per_user.parquet")


def another(run, folder, *, seed, noise=0, **changes):
    """A copy of a run's results with another seed, other scores of LangPTune, and other keys of its recipe."""
    folder.mkdir()
    for name in WRITTEN:
        if (run / name).is_file():
            shutil.copy(run / name, folder)
    config = read_config(run).model_copy(update={"seed": seed})
    for key, value in changes.items():
        section, name = key.split("__")
        config = config.with_values({f"{section}.{name}": value})
    (folder / "config.toml").write_text(to_toml(config))
    per_user = pl.read_parquet(run / "per_user.parquet")
    moved = np.random.default_rng(seed).normal(scale=noise or 1e-9, size=len(per_user))
    ours = pl.col("method") == "LangPTune"
    metrics = ("ndcg@20", "log_likelihood", "log_rank")
    scores = [pl.when(ours).then(pl.col(metric) + pl.lit(moved)).otherwise(metric).alias(metric) for metric in metrics]
    per_user.with_columns(scores).write_parquet(folder / "per_user.parquet")
    return folder


@pytest.fixture(scope="module")
def runs(evaluated_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds")
    return [another(evaluated_run, folder / f"seed-{seed}", seed=seed, noise=0.1) for seed in (3, 1, 2)]


def scores_of(run, table, method, metric):
    per_user = pl.read_parquet(run / "per_user.parquet")
    rows = per_user.filter((pl.col("table") == table) & (pl.col("method") == method)).sort("session_id")
    return rows[metric].to_numpy(), rows["user_id"].to_list()


def test_a_single_run_has_the_comparisons_of_its_results(evaluated_run):
    compared = compare_seeds([evaluated_run])
    expected = read_results(evaluated_run)["comparisons"]
    assert [{key: row[key] for key in expected[0]} for row in compared["comparisons"]] == expected
    assert {row["seed_sd"] for row in compared["comparisons"]} == {None}


@pytest.mark.parametrize("decoding", ["greedy", "sampled"])
@pytest.mark.parametrize("metric", ["ndcg@20", "log_likelihood", "log_rank"])
def test_differences_are_averaged_for_each_session_before_the_test(runs, decoding, metric):
    """By hand: the mean over seeds of a session's difference is one observation, whose user is its cluster."""
    of_seed = []
    for run in runs:
        ours, users = scores_of(run, "methods" if decoding == "greedy" else "sampled", "LangPTune", metric)
        part, _ = scores_of(run, "parts" if decoding == "greedy" else "sampled_parts", "contrastive", metric)
        of_seed.append(ours - part)
    mean = np.mean(of_seed, axis=0)
    compared = compare_seeds(runs)
    (row,) = (
        row
        for row in compared["comparisons"]
        if (row["other"], row["decoding"], row["metric"]) == ("trained embedder, initial policy", decoding, metric)
    )
    assert row["method"] == "LangPTune"
    assert row["difference"] == pytest.approx(mean.mean())
    assert row["interval"] == pytest.approx(bootstrap_interval(mean, clusters=users))
    assert row["p"] == pytest.approx(paired_permutation_test(mean, np.zeros_like(mean), clusters=users), abs=1e-3)
    assert row["by_seed"] == pytest.approx([differences.mean() for differences in of_seed])
    assert row["seed_sd"] == pytest.approx(np.std([differences.mean() for differences in of_seed], ddof=1))
    assert (compared["num_sessions"], compared["num_users"]) == (len(mean), len(set(users)))
    assert [run["seed"] for run in compared["runs"]] == [3, 1, 2]


def test_the_order_of_the_runs_changes_only_their_order(runs):
    one, other = compare_seeds(runs), compare_seeds(runs[::-1])
    for a, b in zip(one["comparisons"], other["comparisons"], strict=True):
        assert a["difference"] == pytest.approx(b["difference"])
        assert a["p"] == pytest.approx(b["p"], abs=1e-3)
        assert a["by_seed"] == b["by_seed"][::-1]


def test_the_command_prints_markdown_and_json(runs):
    compared = compare_seeds(runs)
    command = ["gains", *map(str, runs)]
    shown = CliRunner().invoke(app, command, catch_exceptions=False)
    assert shown.exit_code == 0
    table, _, notes = shown.stdout.partition("\n\n")
    assert table == comparisons_markdown(compared["comparisons"])
    assert table.count(", sd 0.") > 10
    assert "seeds 3, 1, 2, averaged for each session" in notes
    assert "↓: lower is better" in notes
    assert json.loads(CliRunner().invoke(app, [*command, "--json"]).stdout) == compared


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, r"other and .*seed-3 both have the seed 3|seed-3 and .*other both have the seed 3"),
        (
            {"seed": 9, "rlso__steps": 8, "contrastive__batch_size": 4},
            r"contrastive\.batch_size is 4 and 8\. rlso\.steps is 8 and 4\.",
        ),
        ({"seed": 9, "data__seed": 5}, r"data\.seed is 5 and 0\."),
    ],
)
def test_runs_that_differ_in_more_than_their_seed_are_refused(runs, tmp_path, change, message):
    other = another(runs[0], tmp_path / "other", **change)
    with pytest.raises(RunError, match=message):
        compare_seeds([runs[0], other])


def test_keys_that_change_no_number_may_differ(runs, tmp_path):
    other = another(runs[0], tmp_path / "other", seed=9, logging__wandb=True)
    assert compare_seeds([runs[0], other])["runs"][1]["seed"] == 9


def test_other_sessions_and_other_data_are_refused(runs, tmp_path):
    other = another(runs[0], tmp_path / "other", seed=9)
    per_user = pl.read_parquet(other / "per_user.parquet")
    first = per_user["session_id"].min()
    per_user.with_columns(
        session_id=pl.when(pl.col("session_id") == first).then(100_000).otherwise("session_id")
    ).write_parquet(other / "per_user.parquet")
    sessions = read_results(other)["num_sessions"]
    with pytest.raises(RunError, match=rf"of the {sessions} and {sessions} sessions .*, {sessions - 1} are the same"):
        compare_seeds([runs[0], other])
    per_user.filter(pl.col("session_id") != first).write_parquet(other / "per_user.parquet")
    with pytest.raises(RunError, match="has other sessions of methods.Random than results.json"):
        compare_seeds([other])
    both = [another(runs[0], tmp_path / content, seed=seed) for content, seed in (("a", 7), ("b", 8))]
    for run, content in zip(both, ("a", "b"), strict=True):
        data = {"content": {"items": "x", "sessions": content}, "counts": {"items": 40}, "settings": {}}
        (run / "origin.json").write_text(json.dumps({"folder": str(run), "data": data}))
    with pytest.raises(RunError, match="their data differ in the histories"):
        compare_seeds(both)


def test_a_run_that_is_not_evaluated_is_refused(runs, tmp_path):
    (tmp_path / "config.toml").write_bytes((runs[0] / "config.toml").read_bytes())
    with pytest.raises(RunError, match="langptune evaluate"):
        compare_seeds([runs[0], tmp_path])
    with pytest.raises(RunError, match="--split validation"):
        compare_seeds(runs, "validation")
