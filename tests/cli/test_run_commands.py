"""evaluate, profile, recommend and report on a run whose two models are the embedded ones, as they are untrained."""

import json
import shutil
import signal
import subprocess
import sys
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


@pytest.mark.parametrize(
    "command", ["recommend RUN -k 3", "explain RUN --item Jaws", "steer RUN -k 3 --request sharks=1"]
)
def test_every_command_says_what_the_embedder_did_not_read(langptune, run, command):
    name, _, *options = command.split()
    arguments = (name, run, "--profile", "sharks " * 1_000 + "and the very end", *options)
    shown = langptune(*arguments).stdout
    assert "The embedder does not read what follows" in shown
    assert shown.rstrip().endswith("and the very end")
    assert json.loads(langptune(*arguments, "--json").stdout)["unread"].endswith("and the very end")


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


PROFILE = "Films about sharks, such as Jaws. Boxing, such as Rocky."


def test_explain_says_what_each_sentence_does(langptune, run):
    found = json.loads(langptune("explain", run, "--profile", PROFILE, "--item", "jaws", "--json").stdout)
    assert (found["item_id"], found["title"], found["num_ranked"], found["unread"]) == ("i3", "Jaws", len(FILMS), "")
    assert [part["text"] for part in found["parts"]] == PROFILE.replace(". B", ".|B").split("|")
    sharks, boxing = found["parts"]
    assert sharks["effect"] > 0 > boxing["effect"]
    shown = langptune("explain", run, "--profile", PROFILE, "--item", "i3").stdout
    assert "Jaws  [i3]" in shown
    assert f"{sharks['effect']:+.3f}" in shown
    assert "Films about sharks" in shown


def test_explain_a_user_shows_the_history(langptune, run):
    found = json.loads(langptune("explain", run, "--user", "u3", "--item", "Alien", "--by", "word", "--json").stdout)
    assert found["num_ranked"] == 6
    assert {item["title"] for item in found["history"]} == {"Jaws", "Brazil", "Fargo", "Psycho"}
    assert [part["text"] for part in found["parts"]] == found["profile"].split()


def test_steer_shows_the_list_after_the_edits_and_the_moves(langptune, run):
    arguments = ("steer", run, "--profile", PROFILE, "--remove", "1", "--request", "elephants=-0.5", "-k", "3")
    found = json.loads(langptune(*arguments, "--json").stdout)
    assert found["before"] == {"text": PROFILE, "weights": {}, "requests": {}}
    assert found["after"] == {"text": "Boxing, such as Rocky.", "weights": {}, "requests": {"elephants": -0.5}}
    assert found["items"][0]["title"] == "Rocky"
    assert [item["rank"] for item in found["items"]] == [1, 2, 3]
    assert all(item["rank"] > 3 >= item["rank_before"] for item in found["left"])
    shown = langptune(*arguments).stdout
    assert "- 0.5 × elephants" in shown
    assert all(item["title"] in shown for item in [*found["items"], *found["left"]])


def test_steer_by_an_instruction_asks_first(langptune, run):
    arguments = ("steer", run, "--profile", PROFILE, "--instruct", "more cartoons", "-k", "3")
    refused = langptune(*arguments, input="n\n")
    assert refused.exit_code == 1
    proposal = refused.stdout.partition("The policy proposes:\n\n")[2].partition("\n\nTake it?")[0]
    assert proposal
    assert "score" not in refused.stdout  # no ranking
    taken = langptune(*arguments, "--yes", "--json")
    if proposal == PROFILE:
        assert "changes nothing" in taken.stderr
    else:
        assert json.loads(taken.stdout)["after"]["text"] == proposal


def test_wrong_edits_and_items_are_named(error_of, run, tmp_path):
    assert "'jawz'" in (said := error_of("explain", run, "--profile", PROFILE, "--item", "jawz"))
    assert "Did you mean 'Jaws'?" in said
    assert "begin so: 'Amadeus'" in error_of("explain", run, "--profile", PROFILE, "--item", "ama")
    assert "sentence or word" in error_of("explain", run, "--profile", PROFILE, "--item", "Jaws", "--by", "line")
    assert "is in the history" in error_of("explain", run, "--user", "u3", "--item", "Jaws")
    assert "2 sentences" in error_of("steer", run, "--profile", PROFILE, "--remove", "3")
    assert "NUMBER=WEIGHT" in error_of("steer", run, "--profile", PROFILE, "--weigh", "2")
    assert "no edit" in error_of("steer", run, "--profile", PROFILE)
    assert "changes nothing" in error_of("steer", run, "--profile", PROFILE, "--rewrite", PROFILE)
    assert "empty" in error_of("steer", run, "--profile", PROFILE, "--rewrite", " ")
    assert "there is no file" in error_of("recommend", run, "--watch", "none.txt")
    assert "there is no folder" in error_of("recommend", run, "--watch", "none/profile.txt")
    assert "is a folder" in error_of("recommend", run, "--profile", "sharks", "--watch", tmp_path)
    file = tmp_path / "profile.txt"
    assert "empty" in error_of("recommend", run, "--profile", " ", "--watch", file)
    assert "k = 11" in error_of("recommend", run, "--profile", "sharks", "-k", "11", "--watch", file)
    assert not file.exists()


def test_a_run_without_a_policy_ranks_and_says_what_it_cannot_do(langptune, error_of, run, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(run, alone, symlinks=True, ignore=shutil.ignore_patterns("policy"))
    assert "Jaws" in langptune("recommend", alone, "--profile", "the film Jaws", "-k", "1").stdout
    assert "has no trained policy" in error_of("recommend", alone, "--user", "u3")
    assert "has no trained policy" in error_of("profile", alone, "--user", "u3")


def watched(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from langptune_cli.app import main; main()", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_watch_ranks_again_when_the_file_is_saved(run, tmp_path):
    file = tmp_path / "profile.txt"
    with watched("recommend", run, "--profile", PROFILE, "--watch", file, "-k", "3", "--json") as watching:
        assert watching.stdout is not None
        first = json.loads(watching.stdout.readline())
        assert first["profile"] == file.read_text().strip() == PROFILE
        for text in ("Boxing, such as Rocky.", "Elephants and Gandhi."):
            saved = tmp_path / "profile.txt~"
            saved.write_text(text)
            saved.replace(file)  # as editors save
            found = json.loads(watching.stdout.readline())
            assert found["after"]["text"] == text
            assert found["items"][0]["title"] in text
        file.write_text("")  # an editor that empties the file first
        file.write_bytes("Ä".encode("latin-1"))
        assert watching.wait(60) == 2
        assert watching.stderr is not None
        assert "is not UTF-8 text" in watching.stderr.read()


def test_watch_ends_with_an_interruption(run, tmp_path):
    with watched("recommend", run, "--profile", PROFILE, "--watch", tmp_path / "profile.txt", "-k", "1") as watching:
        assert watching.stdout is not None
        assert "[i" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 0
        assert watching.stderr is not None
        assert "Traceback" not in watching.stderr.read()


def test_evaluate_prints_the_table_and_writes_the_results(langptune, error_of, run):
    shown = langptune("evaluate", run, "--split", "validation")
    assert shown.exit_code == 0
    results = json.loads((run / "results-validation.json").read_text())
    assert {"Random", "MP", "EMB-0", "LangPTune-0", "LangPTune"} == results["methods"].keys()
    assert all(method in shown.stdout for method in results["methods"])
    # Trained and untrained models are the same here, so the test must not see a difference.
    assert results["methods"]["LangPTune"]["ndcg@20"]["p_value"] == 1.0
    assert "'tset'" in error_of("evaluate", run, "--split", "tset")
    one = langptune("evaluate", run, "--split", "validation", "--sessions", 1, "--json")
    assert json.loads(one.stdout)["num_sessions"] == 1


def test_evaluate_and_report_as_json(langptune, monkeypatch, tmp_path):
    monkeypatch.setattr("langptune_rs.experiments.evaluate.evaluate_run", lambda run, *, split, **_: {"split": split})
    assert json.loads(langptune("evaluate", tmp_path, "--split", "train", "--json").stdout) == {"split": "train"}
    monkeypatch.setattr("langptune_rs.experiments.report.report.write_report", lambda run: run / "report.html")
    assert json.loads(langptune("report", tmp_path, "--json").stdout) == {"report": str(tmp_path / "report.html")}
