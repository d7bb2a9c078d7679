"""The experiment on what teaches the policy, at a size that says nothing."""

import importlib
from pathlib import Path

import pytest
from tests.experiments.tiny import make_models, tiny_config, write_source
from tests.processes import run_script

from langptune_rs.config import to_toml

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "experiments" / "what_teaches.py"


def test_variants_are_trained_from_equally_many_profiles_and_compared_over_seeds(tmp_path):
    config = tiny_config(*make_models(tmp_path), write_source(tmp_path / "source"), "LangPTune", {})
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(config), encoding="utf-8")
    output = tmp_path / "output"
    arguments = (str(output), "--config", str(recipe), "--variants", "common", "2 profiles", "--seeds", "0", "1")

    table = run_script(SCRIPT, *arguments, "--profiles", "96").splitlines()[-4:]
    head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table)
    assert [row[0] for row in rows] == ["common", "2 profiles"]
    assert all(len(row) == len(head) for row in rows)
    runs = {path.name: path for path in output.iterdir()}
    assert set(runs) == {"embedder", "common-0", "common-1", "2-profiles-0", "2-profiles-1"}
    written = {name: (run / "metrics.jsonl").read_text().count('"phase": "rlso"') for name, run in runs.items()}
    assert written == {"embedder": 0, "common-0": 2, "common-1": 2, "2-profiles-0": 6, "2-profiles-1": 6}
    assert not list(output.glob("*/results.json")), "the test split is not read"

    before = {path: path.stat().st_mtime_ns for path in output.glob("*/results-validation.json")}
    assert run_script(SCRIPT, *arguments, "--profiles", "96").splitlines()[-4:] == table
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is finished is kept"


def test_every_variant_is_another_run_than_the_common_one(monkeypatch):
    monkeypatch.syspath_prepend(SCRIPT.parent)
    what_teaches = importlib.import_module("what_teaches")
    runs = {name: what_teaches.overrides(name, 4608, "quickstart", []) for name in what_teaches.VARIANTS}
    assert len({tuple(sorted(of_run)) for of_run in runs.values()}) == len(runs)
    assert len(runs) > 9


def test_prompts_are_tried(tmp_path):
    config = tiny_config(*make_models(tmp_path), write_source(tmp_path / "source"), "LangPTune", {})
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(config), encoding="utf-8")
    sizes = ("--sessions", "2", "--max-tokens", "5", "--over", "5")
    printed = run_script(
        SCRIPT.with_name("try_prompts.py"),
        "One.",
        "Two.",
        "--config",
        str(recipe),
        "--data",
        str(tmp_path / "d"),
        *sizes,
    )
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if line[:2] == "| "]
    assert [row[:2] for row in rows[1:]] == [[words, t] for words in ("One.", "Two.") for t in ("greedy", "0.7")]
    assert all(1 <= int(row[2]) <= int(row[3]) <= 5 and row[4] == "0%" for row in rows[1:])
    assert all(float(row[5]) < 0 <= float(row[6]) <= 1 for row in rows[1:])
