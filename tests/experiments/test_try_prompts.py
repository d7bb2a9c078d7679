"""Prompts are tried, at a size that says nothing."""

from pathlib import Path

import pytest
from tests.experiments.tiny import make_models, tiny_config, write_source
from tests.processes import run_script

from langptune_rs.config import to_toml

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "experiments" / "try_prompts.py"


def test_prompts_are_tried(tmp_path):
    config = tiny_config(*make_models(tmp_path), write_source(tmp_path / "source"), "LangPTune", {})
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(config), encoding="utf-8")
    sizes = ("--sessions", "2", "--max-tokens", "5", "--over", "5")
    printed = run_script(
        SCRIPT,
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
