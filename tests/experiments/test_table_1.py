"""Table 1's rows over seeds, at a size that says nothing."""

from pathlib import Path

import numpy as np
import pytest
from tests.experiments.tiny import make_models, tiny_config, write_source
from tests.processes import run_script

from langptune_rs.config import to_toml
from langptune_rs.evaluation.significance import holm
from langptune_rs.runs.results import read_results

pytestmark = pytest.mark.slow

OWN = {name: name for name in ("LangPTune-CL", "LangPTune-RLSO")}
"""The runs that a method is read from, where they are not those of LangPTune."""
SCRIPT = Path(__file__).parents[2] / "experiments" / "table_1.py"


def cells(lines):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_every_method_is_trained_with_every_seed_and_compared(tmp_path):
    config = tiny_config(*make_models(tmp_path), write_source(tmp_path / "source"), "LangPTune", {})
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(config), encoding="utf-8")
    output = tmp_path / "output"
    arguments = (str(output), "--config", str(recipe), "--seeds", "0", "1")

    printed = run_script(SCRIPT, *arguments)
    means, differences = printed.split("validation sessions.\n")[-2].split("\n\n")[:2]
    assert {path.name for path in output.iterdir()} == {
        f"{method}-{seed}" for method in ("LangPTune", "LangPTune-CL", "LangPTune-RLSO") for seed in (0, 1)
    }
    assert not list(output.glob("*/results.json")), "the test split is not read"
    table = {(name, decoding): float(first) for name, decoding, first, *_ in cells(means.splitlines())[1:]}
    assert {name for name, _ in table} == {
        "MP", "EMB-0", "LangPTune-0", "LangPTune-CL", "LangPTune-RLSO", "LangPTune",
    }  # fmt: skip
    for (name, decoding), mean in table.items():
        tables = [read_results(output / f"{OWN.get(name, 'LangPTune')}-{seed}", "validation") for seed in (0, 1)]
        kind = "methods" if decoding == "greedy" else "sampled"
        assert mean == pytest.approx(np.mean([found[kind][name]["ndcg@20"]["mean"] for found in tables]), abs=1e-4)
    rows = cells(differences.splitlines())[1:]
    assert len(rows) == 2 * 7
    for method, other, decoding, difference, *_ in rows:
        expected = table[method, decoding] - table.get((other, decoding), table[other, "greedy"])
        assert float(difference.split()[0]) == pytest.approx(expected, abs=1.1e-4)
    assert cells(differences.splitlines())[0][3:6] == ["NDCG@20", "p", "p (Holm)"]
    for decoding in ("greedy", "sampled"):
        shown = [(row[4], row[5]) for row in rows if row[2] == decoding]
        p_values = [0.0005 if p == "< 0.001" else float(p) for p, _ in shown]
        corrected = [float(p_holm) for p, p_holm in shown if p != "< 0.001" and p_holm != "< 0.001"]
        expected = [h for (p, p_holm), h in zip(shown, holm(p_values), strict=True) if "<" not in p + p_holm]
        assert corrected == pytest.approx(expected, abs=7 * 0.0011), "over the seven pairs of a decoding"
    assert "not corrected" not in printed

    before = {path: path.stat().st_mtime_ns for path in output.glob("*/results-validation.json")}
    assert run_script(SCRIPT, *arguments) == printed
    assert {path: path.stat().st_mtime_ns for path in before} == before, "what is finished is kept"


def test_with_one_iteration_the_embedder_of_langptune_is_that_of_langptune_cl(tmp_path):
    config = tiny_config(*make_models(tmp_path), write_source(tmp_path / "source"), "LangPTune", {})
    recipe = tmp_path / "tiny.toml"
    recipe.write_text(to_toml(config), encoding="utf-8")
    output, alone = tmp_path / "output", tmp_path / "alone"
    once = ("--config", str(recipe), "--set", "iterations=1", "contrastive.history_steps=2")

    printed = run_script(SCRIPT, str(output), *once, "--seeds", "0")
    assert {path.name for path in output.iterdir()} == {"LangPTune-0", "LangPTune-RLSO-0"}
    run_script(SCRIPT.with_name("try_recipe.py"), str(alone), *once, "method=LangPTune-CL", "evaluation.samples=1")

    results, of_cl = read_results(output / "LangPTune-0", "validation"), read_results(alone, "validation")
    for table, parts in (("methods", "parts"), ("sampled", "sampled_parts")):
        for metric, numbers in of_cl[table]["LangPTune-CL"].items():
            assert results[parts]["contrastive"][metric]["mean"] == numbers["mean"], metric
    shown = {(row[0], row[1]): row[2] for row in cells(printed.split("\n\n")[0].splitlines())}
    assert shown["LangPTune-CL", "greedy"] == f"{of_cl['methods']['LangPTune-CL']['ndcg@20']['mean']:.4f}"
