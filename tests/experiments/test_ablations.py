"""The ablations: their values, what each of them trains, and what they refuse."""

import json
import re

import pytest
from tests.experiments.tiny_ablations import SHORT, ablate, make_recipe

from langptune_rs.config import load_config, to_toml
from langptune_rs.errors import InputError
from langptune_rs.experiments.ablate.ablate import _settings as settings_of
from langptune_rs.experiments.ablate.ablations import (
    ABLATIONS,
    Limits,
    beyond_limits,
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
from langptune_rs.experiments.ablate.figures import series_of
from langptune_rs.experiments.ablate.page import beside_table
from langptune_rs.experiments.ablate.running import Plan
from langptune_rs.runs.folder import read_config
from langptune_rs.runs.metrics_log import read_metrics


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    return make_recipe(tmp_path_factory.mktemp("recipe"))


@pytest.mark.slow
def test_policies_are_trained_from_equally_many_profiles_under_one_embedder(recipe, tmp_path):
    options = ("--policy-only", "--values", "2,4")
    settings = (*SHORT, "rlso.steps=4", "rlso.epochs=1")
    result = ablate(recipe, "num-profiles", tmp_path, *options, settings=settings)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"data", "embedder", "guards", "2", "4"}
    assert "rlso" not in {line["phase"] for line in read_metrics(tmp_path / "embedder")}
    written = {}
    for run in tmp_path.glob("[24]/seed-*"):
        config = read_config(run)
        assert config.method == "LangPTune-RLSO"
        assert config.embedder.model == str(tmp_path / "embedder" / "embedder")
        steps = [line for line in read_metrics(run) if line["phase"] == "rlso"]
        written[run.parent.name, run.name] = len(steps) * config.rlso.batch_size * config.rlso.num_profiles
    assert set(written.values()) == {4 * 8 * 2}
    assert len(written) == 2
    told = re.findall(r"LangPTune-0: profiles: (\d+)/\1,", result.stderr)
    assert len(told) == 1, "the untrained policy writes once a seed"
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert {row["gain"]["over"] for row in found["rows"]} == {"LangPTune-0"}
    assert not list(tmp_path.glob("*/seed-*/results.json")), "the test split is not read"


@pytest.mark.slow
def test_a_share_of_the_sessions_is_all_that_training_knows(recipe, tmp_path):
    settings = (*SHORT, "contrastive.history_steps=6", "rlso.objective=grpo")
    others = ("--beside", "EASE,MP", "--set", "EASE.l2=10")
    result = ablate(recipe, "train-ratio", tmp_path, "--values", "100,10", *others, settings=settings)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "ablation.json").read_text())
    assert [row["label"] for row in found["rows"]] == ["100%", "10%"]
    own = {}
    for row, share in zip(found["rows"], (1.0, 0.1), strict=True):
        comparison = json.loads((tmp_path / "beside" / f"{100 * share:g}" / "comparison.json").read_text())
        assert comparison["train_share"] == share
        assert comparison["split"] == "validation"
        means = {other["name"]: other["metrics"] for other in comparison["rows"]}
        assert means["LangPTune by GRPO"]["ndcg@20"]["mean"] == row["metrics"]["greedy"]["ndcg@20"]["mean"]
        assert {name: of["metrics"] for name, of in row["beside"].items()} == {n: means[n] for n in ("EASE", "MP")}
        own[row["label"]] = row["beside"]["EASE"]["metrics"]["ndcg@20"]["mean"]
        assert 0 < row["beside"]["EASE"]["p"]["ndcg@20"] <= 1
    assert own["100%"] != own["10%"], "a method learns from the share too"
    assert [series.name for series in series_of(found, "ndcg@20")][-2:] == ["MP", "EASE"]
    assert [row[0] for row in beside_table(found)[1]] == ["LangPTune, greedy", "MP", "EASE"]
    assert f"{own['10%']:.4f}" in (tmp_path / "ablation.html").read_text()
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
    paper = config_of("profile.max_tokens=512")
    assert values_of(find_ablation("profile-length"), None, paper, Limits(1))[0] == [512, 256, 128, 64]
    assert found["train-ratio"] == ([100, 10, 1], 100)
    assert found["iterations"] == ([1, 2, 3], 1)
    assert found["num-profiles"] == ([2, 4, 6, 8], 6)
    assert found["epochs"] == ([1, 2, 4], 1)
    assert found["num-targets"] == ([1, 3, 6], 6)
    assert found["objective"] == (["rlso", "rloo", "grpo", "dpo"], "rlso")
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
    limits = limits_of(ablation, config, 2_265)
    assert values_of(ablation, None, config, limits)[0] == [100, 10]
    assert beyond_limits(ablation, config, limits) == (
        "1% is left out, since it is a percentage from 5.66 to 100: the largest batch has 128 of the 2,265 train "
        "sessions."
    )
    assert beyond_limits(ablation, config, limits_of(ablation, config, 16_377)) == ""
    tiny = config_of("data.train_share=0.01")
    assert "1%" not in beyond_limits(ablation, tiny, limits_of(ablation, tiny, 2_265)), "the recipe's own is kept"


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
        ("objective", "rlso,ppo", "objective cannot be 'ppo': it is one of rlso, rloo, grpo, dpo."),
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
        ("reward", ("--beside", "EASE"), "--beside goes with train-ratio: nothing that reward varies"),
        ("train-ratio", ("--beside", "EAZE"), "there is no method 'EAZE'. Did you mean"),
        ("train-ratio", ("--beside", "LangPTune"), "is trained by `langptune train`"),
        ("train-ratio", ("--beside", "all"), "methods, and a figure tells 4 apart"),
        ("train-ratio", ("--beside", "MP", "--set", "EASE.l2=1"), "EASE has settings, but is not among the methods"),
        ("train-ratio", ("--set", "EASE.l2=1"), "EASE has settings, but is not among the methods of --beside"),
        ("train-ratio", ("--beside", "EASE", "--set", "EASE.l2=-1"), "EASE.l2 = -1: "),
    ],
)
def test_what_cannot_be_ablated_is_refused_before_anything_is_trained(recipe, tmp_path, what, options, message):
    result = ablate(recipe, what, tmp_path / "new", *options)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())
    assert not list((tmp_path / "new").glob("*/seed-*"))


def test_the_users_penalty_is_kept_in_an_ablation_of_the_reward(recipe, tmp_path):
    ablation, overrides = find_ablation("reward"), ("rlso.overlong_penalty=0.7",)
    for given, penalty in (((), 0.0), (overrides, 0.7)):
        config = load_config("quickstart", given)
        plan = Plan(ablation, "quickstart", given, config, ("ndcg",), own_value(ablation, config), (0,), "test", False)
        assert plan.config_of("ndcg", 0, tmp_path).rlso.overlong_penalty == penalty
        shown = [setting for setting in settings_of(plan, "ndcg") if "overlong_penalty" in setting]
        assert len(shown) == (0 if given else 1), "the page shows the user's own among the settings of all"


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
