"""Every script in examples/ runs, does what it says, and stays short."""

import json
import re
from pathlib import Path

import pytest
from tests.experiments.tiny import make_models, write_source
from tests.processes import run_script

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(name: str, *arguments: str | Path) -> str:
    """What an example prints."""
    return run_script(EXAMPLES / name, *map(str, arguments))


def test_examples_are_short_and_all_are_run_here():
    scripts = {path.name: len(path.read_text(encoding="utf-8").splitlines()) for path in EXAMPLES.glob("*.py")}
    assert all(length < 60 for length in scripts.values()), scripts
    own = Path(__file__).read_text(encoding="utf-8")
    assert len(scripts) == 5
    assert all(f'run("{name}"' in own for name in scripts)


def test_a_recommender_is_evaluated():
    printed = run("evaluate_your_recommender.py").splitlines()
    means = {tuple(line[:23].split()[-2:]): float(line[23:].split()[0]) for line in printed[:6]}
    assert means["factors", "ndcg@20"] > means["popular", "ndcg@20"] > 0
    assert printed[-1].startswith("| factors - most popular")


def test_a_sharded_catalog_is_ranked():
    printed = run("rank_a_sharded_catalog.py")
    assert "ShardedIndex(100000 items in 3 shards)" in printed
    assert printed.rstrip().endswith("one index finds the same, bit for bit")


def test_an_objective_raises_the_expected_reward():
    before, rlso, yours = (float(line.split()[1]) for line in run("add_an_objective.py").splitlines())
    assert rlso > before
    assert yours > before


@pytest.mark.slow
def test_a_reward_of_ones_own_lowers_the_loss_on_each_rollout(tmp_path):
    policy, embedder = make_models(tmp_path)
    models = (f"policy.model={policy}", "policy.last_layers=1", f"embedder.model={embedder}")
    other = (f"data.source={write_source(tmp_path / 'log')}", "profile.temperature=3", "rlso.learning_rate=1e-3")
    printed = run("add_a_reward.py", *models, *other)
    steps = re.findall(r"step (\d): reward (-\d+\.\d+), loss (\d+\.\d+)\n", printed)
    assert [step for step, _, _ in steps] == ["1", "2", "3", "4"]
    rewards, losses = ([float(step[i]) for step in steps] for i in (1, 2))
    assert rewards[0] == rewards[1] != rewards[2] == rewards[3]
    assert losses[1] < losses[0]
    assert losses[3] < losses[2]


@pytest.mark.slow
def test_a_log_of_ones_own_is_trained_on(tmp_path):
    policy, embedder = make_models(tmp_path)
    models = (f"policy.model={policy}", "policy.last_layers=1", f"embedder.model={embedder}")
    printed = run("train_on_your_log.py", tmp_path / "mine", *models, "data.max_history_tokens=none")
    assert "report.html" in printed
    results = json.loads((tmp_path / "mine" / "run" / "results.json").read_text())
    assert list(results["methods"]) == ["Random", "MP", "EMB-0", "LangPTune-0", "LangPTune"]
    assert results["num_sessions"] == 8
