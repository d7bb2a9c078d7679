"""evaluate, profile, recommend and report on a run whose two models are the embedded ones, as they are untrained."""

import json
import shutil
from pathlib import Path

import pytest

from langptune_rs.config import load_config, to_toml
from langptune_rs.models.weights import embedder_folder, policy_folder

pytestmark = pytest.mark.slow

FILMS = ["Alien", "Heat", "Up", "Jaws", "Brazil", "Fargo", "Psycho", "Rocky", "Gandhi", "Amadeus"]
SENTENCE = "A heartfelt animated story about a boy and his dog."


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A finished run of 30 users and ten films; what it has learned is nothing."""
    source = tmp_path_factory.mktemp("source")
    items = [{"item_id": f"i{n}", "title": title, "categories": ["Film"]} for n, title in enumerate(FILMS)]
    events = [
        {"user_id": f"u{user}", "item_id": f"i{(user + step) % len(FILMS)}", "rating": 4, "timestamp": step}
        for user in range(30)
        for step in range(5)
    ]
    for name, rows in (("items", items), ("interactions", events)):
        (source / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = tmp_path_factory.mktemp("run")
    overrides = [f"data.source={source}", "profile.max_tokens=8", "evaluation.samples=1"]
    (run / "config.toml").write_text(to_toml(load_config("quickstart", overrides)))
    link_model(policy_folder("smollm2-135m-instruct"), run / "policy")
    link_model(embedder_folder("all-minilm-l6-v2"), run / "embedder")
    return run


def link_model(model: Path, folder: Path) -> None:
    """A folder of its own, since commands write model cards into it; only the weights are links: nobody writes them."""
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors", "README.md"))
    for weights in model.glob("*.safetensors"):
        (folder / weights.name).symlink_to(weights)


def test_profile_of_a_user_is_text_or_json(langptune, run):
    text = langptune("profile", run, "--user", "u3").stdout
    assert text.strip()
    found = json.loads(langptune("profile", run, "--user", "u3", "--json").stdout)
    assert found == {"history": ["Jaws", "Brazil", "Fargo", "Psycho"], "profile": text.strip()}


def test_profile_of_a_history_in_a_file_is_that_of_the_same_user(langptune, run, tmp_path):
    history = tmp_path / "history.jsonl"
    history.write_text("".join(json.dumps({"item_id": f"i{n}", "rating": 4}) + "\n" for n in (3, 4, 5, 6)))
    assert langptune("profile", run, "--history", history).stdout == langptune("profile", run, "--user", "u3").stdout


def test_recommend_leaves_the_history_out(langptune, run):
    found = json.loads(langptune("recommend", run, "--user", "u3", "-k", "6", "--json").stdout)
    assert {item["title"] for item in found["items"]} == set(FILMS) - {"Jaws", "Brazil", "Fargo", "Psycho"}
    scores = [item["score"] for item in found["items"]]
    assert scores == sorted(scores, reverse=True)


def test_recommend_for_a_written_profile_ranks_by_it(langptune, run):
    lines = langptune("recommend", run, "--profile", "the film Jaws about a shark", "-k", "3").stdout.splitlines()
    assert len(lines) == 3
    assert "Jaws" in lines[0]


def test_wrong_users_files_and_numbers_are_named(error_of, run, tmp_path):
    assert "'nobody'" in error_of("profile", run, "--user", "nobody")
    assert "missing.jsonl" in error_of("profile", run, "--history", tmp_path / "missing.jsonl")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"item_id": "i1"}\n{"item_id": \n')
    assert "broken.jsonl" in error_of("profile", run, "--history", broken)
    assert "2" in error_of("profile", run, "--history", broken).partition("broken.jsonl")[2]
    broken.write_text('{"title": "Jawz"}\n')
    assert "Jaws" in error_of("profile", run, "--history", broken)
    assert "k = 11" in error_of("recommend", run, "--profile", "sharks", "-k", "11")
    assert "empty" in error_of("recommend", run, "--profile", " ")


def test_evaluate_prints_the_table_and_writes_the_results(langptune, error_of, run):
    shown = langptune("evaluate", run, "--split", "validation")
    assert shown.exit_code == 0
    results = json.loads((run / "results-validation.json").read_text())
    assert {"Random", "MP", "EMB-0", "LangPTune-0", "LangPTune"} == results["methods"].keys()
    assert all(method in shown.stdout for method in results["methods"])
    # Trained and untrained models are the same here, so the test must not see a difference.
    assert results["methods"]["LangPTune"]["ndcg@20"]["p_value"] == 1.0
    assert "'tset'" in error_of("evaluate", run, "--split", "tset")


def test_evaluate_and_report_as_json(langptune, monkeypatch, tmp_path):
    monkeypatch.setattr("langptune_rs.experiments.evaluate.evaluate_run", lambda run, *, split: {"split": split})
    assert json.loads(langptune("evaluate", tmp_path, "--split", "train", "--json").stdout) == {"split": "train"}
    monkeypatch.setattr("langptune_rs.experiments.report.report.write_report", lambda run: run / "report.html")
    assert json.loads(langptune("report", tmp_path, "--json").stdout) == {"report": str(tmp_path / "report.html")}
