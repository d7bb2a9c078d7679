"""`langptune describe` as a user types it, on tiny models and data whose reviews say what an item is."""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.experiments.tiny import make_models, make_run, write_source
from tests.invariance.conftest import ENDS, end_profiles_by
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.data import load
from langptune_rs.describing import describe as module
from langptune_rs.describing.judging import CATALOGS, INITIAL, METADATA, PAIRS, TRAINED
from langptune_rs.errors import RunError
from langptune_rs.evaluation.significance import holm, paired_permutation_test
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.policy import Policy
from langptune_rs.runs.folder import read_config
from langptune_rs.training import trainer

pytestmark = pytest.mark.slow

SHORT = (
    *("policy.last_layers=1", "profile.max_tokens=16", "profile.temperature=4", "description.max_reviews=2"),
    *("rlso.steps=4", "rlso.batch_size=8", "rlso.num_profiles=3", "rlso.learning_rate=0.1"),
    *("checkpoint.every=2", "evaluation.validation_sessions=6"),
)
TIMES = ("seconds", "versions")


def invoke(*arguments, **options):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False, **options)


def settings(folder, *more):
    models = (f"policy.model={folder / 'tiny-policy'}", f"embedder.model={folder / 'tiny-embedder'}")
    return [argument for override in (*models, *SHORT, *more) for argument in ("--set", override)]


def results_of(output, split="validation"):
    results = json.loads((output / f"results{'' if split == 'test' else '-' + split}.json").read_text(encoding="utf-8"))
    return {key: value for key, value in results.items() if key not in TIMES}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder with two models, of which the policy's texts end, and a source with reviews."""
    folder = tmp_path_factory.mktemp("tiny")
    policy, _ = make_models(folder)
    end_profiles_by(ENDS, policy)
    write_source(folder / "source", reviews=True)
    return folder


@pytest.fixture(scope="module")
def described(tiny, tmp_path_factory):
    """The output of two seeds, and what was printed. Tests read it and leave it as it is."""
    output = tmp_path_factory.mktemp("described") / "out"
    result = invoke("describe", tiny / "source", "--output", output, "--seeds", 2, "--item", "i7", *settings(tiny))
    assert result.exit_code == 0, result.stderr
    return output, result.stdout


def test_every_catalog_is_judged_on_the_same_sessions(described):
    output, printed = described
    results, rows = results_of(output), pl.read_parquet(output / "per_user-validation.parquet")
    assert list(results["catalogs"]) == list(CATALOGS)
    dataset = load(output / "data")
    sessions = dataset.sessions.select("validation")
    versions = rows.select("catalog", "seed").unique(maintain_order=True).rows()
    assert [catalog for catalog, _ in versions] == [
        name for name in CATALOGS for _ in range(2 if TRAINED in name else 1)
    ]
    assert {seed for name, seed in versions if TRAINED in name} == {0, 1}
    assert {seed for name, seed in versions if TRAINED not in name} == {None}
    for _, own in rows.group_by(["catalog", "seed"], maintain_order=True):
        assert own["session_id"].to_list() == sessions.session_ids.tolist()
        assert own["target"].to_list() == [dataset.catalog.item_ids[target] for target in sessions.targets.tolist()]
    for name, found in results["catalogs"].items():
        of_catalog = rows.filter(pl.col("catalog") == name)
        for metric, numbers in found["metrics"].items():
            assert numbers["mean"] == pytest.approx(of_catalog[metric].mean())
            assert numbers["low"] <= numbers["mean"] <= numbers["high"]
    assert f"{results['num_described']} of {results['num_items']} items" in printed
    assert results["num_described"] == results["num_items"] - 1, "nobody has reviewed item 3"


def test_the_metadata_rank_as_a_loop_ranks_them(described, tiny):
    output, _ = described
    dataset = load(output / "data")
    sessions = dataset.sessions.select("validation")
    embedder = Embedder.load(read_config(output / "seed-0").embedder)
    items = embedder.encode_items(dataset.catalog.texts.to_list()).astype(np.float64)
    ranks = []
    for row in range(len(sessions)):
        titles = "; ".join(dataset.catalog.titles[item] for item in sessions.histories[row].tolist())
        (user,) = embedder.encode_profiles([titles])
        scores = items @ user
        scores[sessions.histories[row]] = -np.inf
        ranks.append(1 + int((scores > scores[sessions.targets[row]]).sum()))
    rows = pl.read_parquet(output / "per_user-validation.parquet").filter(pl.col("catalog") == METADATA)
    assert rows["rank"].to_list() == ranks


def test_tests_are_those_of_the_scores_of_the_sessions(described):
    output, _ = described
    results, rows = results_of(output), pl.read_parquet(output / "per_user-validation.parquet")
    shown = [row for row in results["comparisons"] if row["metric"] == "ndcg@20"]
    assert [(row["method"], row["other"]) for row in shown] == list(PAIRS)

    def scores(name):
        own = rows.filter(pl.col("catalog") == name)
        return np.mean([part["ndcg@20"].to_numpy() for _, part in own.group_by("seed", maintain_order=True)], axis=0)

    users = rows.filter(pl.col("catalog") == METADATA)["user_id"].to_list()
    p_values = [paired_permutation_test(scores(a), scores(b), clusters=users) for a, b in PAIRS]
    for row, p, p_holm in zip(shown, p_values, holm(p_values), strict=True):
        assert (row["p"], row["p_holm"]) == (p, p_holm)
        assert row["difference"] == pytest.approx((scores(row["method"]) - scores(row["other"])).mean())
        has_seeds = TRAINED in row["method"]
        assert len(row["by_seed"]) == (2 if has_seeds else 1)
        assert np.mean(row["by_seed"]) == pytest.approx(row["difference"])
        assert (row["seed_sd"] is not None) == has_seeds


def test_descriptions_can_be_read_with_what_they_were_written_from(described):
    output, printed = described
    lines = [json.loads(line) for line in (output / "descriptions.jsonl").read_text(encoding="utf-8").splitlines()]
    dataset, results = load(output / "data"), results_of(output)
    assert [line["item_id"] for line in lines] == [item for item in dataset.catalog.item_ids if item != "i3"]
    assert all(set(line["trained"]) == {"0", "1"} and len(line["reviews"]) <= 2 for line in lines)
    assert any(line["trained"]["0"] != line["initial"] for line in lines), "the policy writes something else now"
    assert any(line["trained"]["0"] != line["trained"]["1"] for line in lines)
    (example,) = results["examples"]
    (line,) = (line for line in lines if line["item_id"] == "i7")
    assert (example["initial"], example["trained"]) == (line["initial"], line["trained"]["0"])
    assert "**Story 7 of" in printed


def test_the_embedder_stays_and_the_policy_learns_alone(described):
    from safetensors.torch import load_file

    output, _ = described
    config = read_config(output / "seed-0")
    assert (config.writes, config.method) == ("descriptions", "LangPTune-RLSO")

    def weights(folder):
        return load_file(next(Path(folder).glob("*.safetensors")))

    before, after = weights(config.embedder.model), weights(output / "seed-0" / "embedder")
    assert all(np.array_equal(before[name], after[name]) for name in before)
    phases = [json.loads(line)["phase"] for line in (output / "seed-0" / "metrics.jsonl").read_text().splitlines()]
    assert phases == ["validation", *["rlso"] * 4, "validation"]


def test_what_is_done_is_not_done_again_and_another_split_takes_what_is_there(described, tiny, tmp_path, monkeypatch):
    output, _ = described
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    before = results_of(output)
    monkeypatch.setattr(Policy, "load", None)
    monkeypatch.setattr(Policy, "from_folder", None)
    again = ["describe", tiny / "source", "--output", output, "--seeds", 2, "--item", "i7", "--json", *settings(tiny)]
    result = invoke(*again)
    assert result.exit_code == 0, result.stderr
    assert {key: value for key, value in json.loads(result.stdout).items() if key not in TIMES} == before
    result = invoke(*again, "--split", "test")
    assert result.exit_code == 0, result.stderr
    test = results_of(output, "test")
    assert test["split"] == "test"
    assert test["descriptions"] == before["descriptions"]
    assert {name: own["cut_share"] for name, own in test["catalogs"].items()} == {
        name: own["cut_share"] for name, own in before["catalogs"].items()
    }


class Stop(Exception):
    """What stands for a kill."""


def stopping(function, calls):
    """`function`, which stops after so many calls."""
    left = [calls]

    def call(*arguments, **options):
        if not left[0]:
            raise Stop
        left[0] -= 1
        return function(*arguments, **options)

    return call


def test_an_interrupted_description_goes_on_as_the_uninterrupted_one(described, tiny, tmp_path, monkeypatch):
    output, resumed = described[0], tmp_path / "out"
    arguments = ["describe", tiny / "source", "--output", resumed, "--seeds", 2, "--item", "i7", *settings(tiny)]
    for place, name, calls in (
        (trainer, "policy_step", 3),  # in the first seed, behind its checkpoint
        (trainer, "policy_step", 4),  # in the second
        (module, "write_descriptions", 2),
        (module, "_lines", 0),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, stopping(getattr(place, name), calls))
            with pytest.raises(Stop):
                invoke(*arguments)
    assert not (resumed / "results-validation.json").exists()
    assert invoke(*arguments).exit_code == 0
    assert (resumed / "descriptions.jsonl").read_bytes() == (output / "descriptions.jsonl").read_bytes()
    assert results_of(resumed) == results_of(output)


def test_the_policy_learns_to_write_what_users_look_for(tiny, tmp_path, monkeypatch):
    """Users look for items whose descriptions have capital letters, of which the reviews know nothing."""

    def share(text):
        return sum(letter.isupper() for letter in text) / max(1, len(text))

    def items(self, texts):
        angles = np.array([share(text) for text in texts]) * np.pi / 2
        vectors = np.zeros((len(texts), self.dim), dtype=np.float32)
        vectors[:, 0], vectors[:, 1] = np.sin(angles), np.cos(angles)
        return vectors

    monkeypatch.setattr(Embedder, "encode_items", items)
    monkeypatch.setattr(Embedder, "encode_profiles", lambda self, texts: items(self, ["A"] * len(texts)))
    output = tmp_path / "out"
    more = ("rlso.steps=30", "rlso.batch_size=16", "rlso.num_profiles=8", "rlso.reward=log_softmax")
    more = (*more, "rlso.learning_rate=1e-2")
    result = invoke("describe", tiny / "source", "--output", output, *settings(tiny, *more))
    assert result.exit_code == 0, result.stderr
    lines = [json.loads(line) for line in (output / "seed-0" / "metrics.jsonl").read_text().splitlines()]
    rewards = [line["reward/log_softmax"] for line in lines if "reward/log_softmax" in line]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.2
    results = results_of(output)
    (gain,) = (
        row
        for row in results["comparisons"]
        if (row["method"], row["other"], row["metric"]) == (TRAINED, INITIAL, "log_likelihood")
    )
    written = [json.loads(line) for line in (output / "descriptions.jsonl").read_text().splitlines()]
    before, after = (
        np.mean([share(text) for text in texts])
        for texts in ([line["initial"] for line in written], [line["trained"]["0"] for line in written])
    )
    assert after > before + 0.1
    assert gain["by_seed"]


@pytest.fixture(scope="module")
def run_with_reviews(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), reviews=True, max_sessions=12, samples=0)


def test_the_profiles_of_a_run_stand_for_the_users_and_its_embedder_ranks(run_with_reviews, tmp_path):
    run, output = run_with_reviews, tmp_path / "out"
    arguments = ["describe", run / "data", "--output", output, "--run", run, "--json"]
    short = [argument for override in SHORT for argument in ("--set", override)]
    models = ("--set", f"policy.model={run.parent / 'tiny-policy'}")
    result = invoke(*arguments, *models, *short)
    assert result.exit_code == 2
    assert "no prepared data set" in result.stderr or "source" in result.stderr
    source = run.parent / "source"
    result = invoke("describe", source, "--output", output, "--run", run, "--json", *models, *short)
    assert result.exit_code == 0, result.stderr
    results = json.loads(result.stdout)
    assert results["users"] == f"profiles of {run}"
    profiles = pl.read_parquet(run / "profiles-validation.parquet").filter(
        pl.col("policy") == "LangPTune", pl.col("decoding") == "greedy"
    )
    rows = pl.read_parquet(output / "per_user-validation.parquet").filter(pl.col("catalog") == METADATA)
    assert rows["session_id"].to_list() == profiles["session_id"].to_list()
    expected = pl.read_parquet(run / "per_user-validation.parquet").filter(
        pl.col("method") == "LangPTune", pl.col("table") == "methods"
    )
    assert rows["rank"].to_list() == [ranks[0] for ranks in expected["ranks"].to_list()]
    assert results["num_learned_from"] <= 12


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--split", "train"], "judge on validation or test"),
        (["--split", "tomorrow"], "no sessions in the split 'tomorrow'"),
        (["--config", "quickstart"], 'writes = "profiles"'),
        (["--set", "writes=profiles"], 'writes = "profiles"'),
        (["--set", "method=LangPTune"], 'set method = "LangPTune-RLSO"'),
        (["--set", "seed=3"], "--seeds says"),
        (["--set", "description.users_of=run"], "--run RUN"),
        (["--set", "data.train_share=0.5"], "Leave it out"),
        (["--set", "description.max_user=3"], "description.max_users"),
        (["--set", "description.max_reviews=0"], "description.max_reviews"),
        (["--item", "Story 7 of nothing"], "Did you mean 'Story"),
        (["--item", "i3"], "has no review in a train session"),
        (["--run", "nowhere"], "nowhere holds no run"),
        (["--set", "profile.max_tokens=4000"], "tokens"),
        (["--set", "rlso.batch_size=64"], "items with a review and a user who chose them"),
    ],
)
def test_wrong_input_ends_with_a_sentence(tiny, tmp_path, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    result = invoke("describe", tiny / "source", "--output", tmp_path / "out", *settings(tiny), *more)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_other_settings_are_not_mixed_into_an_output(described, tiny):
    output, _ = described
    result = invoke(
        "describe", tiny / "source", "--output", output, *settings(tiny), "--set", "description.max_users=3"
    )
    assert result.exit_code == 2
    assert "started with another configuration" in result.stderr
    assert "max_users = 3" in result.stderr


def test_data_without_reviews_are_refused(tiny, tmp_path):
    source = write_source(tmp_path / "bare")
    result = invoke("describe", source, "--output", tmp_path / "out", *settings(tiny))
    assert result.exit_code == 2
    assert "have no reviews" in result.stderr
    assert not list(tmp_path.glob("out/seed-*"))


def test_a_run_of_other_data_and_one_without_a_policy_are_refused(run_with_reviews, tiny, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(run_with_reviews, run)
    other = write_source(tmp_path / "other", num_users=30, reviews=True)
    arguments = ["--output", tmp_path / "out", "--run", run, "--set", f"policy.model={tiny / 'tiny-policy'}"]
    result = invoke("describe", other, *arguments)
    assert result.exit_code == 2
    assert "was trained on other data" in result.stderr
    result = invoke("describe", other, *arguments, "--set", "embedder.max_tokens=9")
    assert "with --run the embedder of" in result.stderr
    shutil.rmtree(run / "policy")
    result = invoke("describe", other, *arguments)
    assert result.exit_code == 2
    assert "has no trained policy" in result.stderr


@pytest.mark.parametrize("command", [["evaluate"], ["profiles"], ["recommend", "--profile", "cats"], ["serve"]])
def test_commands_about_users_refuse_a_policy_that_describes_items(described, tmp_path, command):
    name, *options = command
    out = [tmp_path / "out.parquet"] if name == "profiles" else []
    result = invoke(name, described[0] / "seed-0", *out, *options)
    assert result.exit_code == 2
    assert "writes descriptions of items, not profiles" in result.stderr


def test_a_recipe_of_descriptions_is_not_trained_as_one_of_profiles(tiny, tmp_path):
    result = invoke("train", "--config", "describe", "--output", tmp_path / "run", *settings(tiny))
    assert result.exit_code == 2
    assert "`langptune describe`" in result.stderr
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "out").write_text("")
    result = invoke("describe", tiny / "source", "--output", tmp_path / "out", *settings(tiny))
    assert result.exit_code == 2
    assert "is a file" in result.stderr


def test_two_processes_do_not_share_an_output(described, tiny):
    from langptune_rs.files import locked

    with locked(described[0] / ".lock", RunError):
        result = invoke("describe", tiny / "source", "--output", described[0], *settings(tiny))
    assert result.exit_code == 2
    assert "is at work in" in result.stderr
