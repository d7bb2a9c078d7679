"""Table 1's rows over seeds, at a size that says nothing."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.experiments.tiny import make_models, tiny_config, write_source
from tests.processes import run_script

from langptune_rs.config import to_toml
from langptune_rs.experiments.compare.page import markdown
from langptune_rs.runs.results import read_results

pytestmark = pytest.mark.slow

OWN = {name: name for name in ("LangPTune-CL", "LangPTune-RLSO")}
"""The runs that a method is read from, where they are not those of LangPTune."""
DECODED = ("", ", sampled")
SCRIPT = Path(__file__).parents[2] / "experiments" / "table_1.py"


def test_every_method_is_trained_with_every_seed_and_compared(tmp_path):
    config = tiny_config(*make_models(tmp_path), write_source(tmp_path / "source"), "LangPTune", {})
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(config), encoding="utf-8")
    output = tmp_path / "output"
    arguments = (str(output), "--config", str(recipe), "--seeds", "0", "1")

    printed = run_script(SCRIPT, *arguments)
    runs = {f"{method}-{seed}" for method in ("LangPTune", "LangPTune-CL", "LangPTune-RLSO") for seed in (0, 1)}
    assert {path.name for path in output.iterdir()} == {*runs, "compared-validation"}
    assert not list(output.glob("*/results.json")), "the test split is not read"
    comparison = json.loads((output / "compared-validation" / "comparison.json").read_text())
    assert printed == markdown(comparison) + "\n"
    assert comparison["split"] == "validation"
    rows = {row["name"]: row for row in comparison["rows"]}
    assert set(rows) == {
        *("MP", "EMB-0"),
        *(name + as_ for name in ("LangPTune-0", "LangPTune-CL", "LangPTune-RLSO", "LangPTune") for as_ in DECODED),
    }
    for name, row in rows.items():
        method, _, is_sampled = name.partition(", ")
        if method == "EMB-0":
            continue  # which tries how much of a history it reads
        tables = [read_results(output / f"{OWN.get(method, 'LangPTune')}-{seed}", "validation") for seed in (0, 1)]
        own = [found["sampled" if is_sampled else "methods"][method]["ndcg@20"]["mean"] for found in tables]
        assert row["metrics"]["ndcg@20"]["mean"] == pytest.approx(np.mean(own), abs=1e-12)
        assert (row["guards"] is not None) == method.startswith("LangPTune")
    for row in comparison["orderings"]:
        ours, other = (
            rows.get(f"{row[name]}, sampled" if row["decoding"] == "sampled" else row[name], rows.get(row[name]))
            for name in ("method", "other")
        )
        means = (found["metrics"][row["metric"]]["mean"] for found in (ours, other))
        assert row["difference"] == pytest.approx(next(means) - next(means), abs=1e-12)
    of_headline = [row for row in comparison["orderings"] if row["metric"] == "ndcg@20"]
    assert len(of_headline) == 2 * 7

    before = {path: path.stat().st_mtime_ns for path in output.glob("*/results-validation.json")}
    assert run_script(SCRIPT, *arguments) == printed
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is finished is kept"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "0", "0"), "error: seeds are [0, 0]; give at least one, none below 0 and none twice"),
        (("--set", "seed=3"), "error: The override 'seed=3': --seeds says which seeds there are."),
        (("--set", "rlso.stepz=3"), "Did you mean 'rlso.steps'?"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(tmp_path, arguments, message):
    with pytest.raises(AssertionError) as error:
        run_script(SCRIPT, str(tmp_path / "none"), *arguments)
    assert message in str(error.value)
    assert "Traceback" not in str(error.value)
    assert not (tmp_path / "none").exists()


def test_with_one_iteration_the_embedder_of_langptune_is_that_of_langptune_cl(tmp_path):
    config = tiny_config(*make_models(tmp_path), write_source(tmp_path / "source"), "LangPTune", {})
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(config), encoding="utf-8")
    output, alone = tmp_path / "output", tmp_path / "alone"
    once = ("--config", str(recipe), "--set", "iterations=1", "contrastive.history_steps=2")

    run_script(SCRIPT, str(output), *once, "--seeds", "0")
    assert {path.name for path in output.iterdir()} == {"LangPTune-0", "LangPTune-RLSO-0", "compared-validation"}
    run_script(SCRIPT.with_name("try_recipe.py"), str(alone), *once, "method=LangPTune-CL", "evaluation.samples=1")

    results, of_cl = read_results(output / "LangPTune-0", "validation"), read_results(alone, "validation")
    for table, parts in (("methods", "parts"), ("sampled", "sampled_parts")):
        for metric, numbers in of_cl[table]["LangPTune-CL"].items():
            assert results[parts]["contrastive"][metric]["mean"] == numbers["mean"], metric
    comparison = json.loads((output / "compared-validation" / "comparison.json").read_text())
    shown = {row["name"]: row["metrics"]["ndcg@20"]["mean"] for row in comparison["rows"]}
    assert shown["LangPTune-CL"] == of_cl["methods"]["LangPTune-CL"]["ndcg@20"]["mean"]
