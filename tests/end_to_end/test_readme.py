"""Every command and example of the README and of the pages of docs/, in their order, in an empty folder."""

import gzip
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from tests.processes import run_command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
START, DATA, TRAINING, DISTRIBUTED, REPORT, EVALUATION, COMPARE, STEERING = (
    (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    for page in ("index", "data", "training", "distributed", "report", "evaluation", "compare", "steering")
)

SHORTER = {
    "data.max_sessions": 8,
    "profile.max_tokens": 8,
    "embedder.max_tokens": 16,
    "contrastive.history_steps": 2,
    "contrastive.steps": 2,
    "contrastive.batch_size": 8,
    "rlso.steps": 2,
    "rlso.batch_size": 4,
    "evaluation.max_sessions": 4,
    "evaluation.validation_sessions": 2,
}
"""What makes the README's training take seconds."""


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def commands(text: str = README) -> list[str]:
    return [line for block in blocks("console", text) for line in block.splitlines() if line.startswith("langptune ")]


def overrides(values: dict[str, int | str]) -> list[str]:
    """The options that set recipe keys."""
    return [part for key, value in values.items() for part in ("--set", f"{key}={value}")]


def langptune(line: str, folder: Path, *more: str) -> str:
    """What a line that begins with `langptune` prints, with more options behind it."""
    return run_command(*shlex.split(line, comments=True)[1:], *more, folder=folder)


def python(code: str, folder: Path) -> str:
    """What a program prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


def shorter(line: str) -> dict[str, int | str]:
    """What makes a line take seconds, and a comparison rank the sessions that the shorter training has ranked.

    A setting that is given is not tuned: EMB-0 would read the histories of all validation sessions twice.
    """
    if line.startswith("langptune train "):
        return dict(SHORTER)
    keys = ("evaluation.max_sessions", "embedder.max_tokens") if line.startswith("langptune compare ") else ()
    untuned = {"EMB-0.max_tokens": SHORTER["embedder.max_tokens"]} if ",EMB-0" in line else {}
    return {key: SHORTER[key] for key in keys} | untuned


def test_the_commands_run_in_order(tmp_path):
    lines = ['{"title": "Fargo (1996)", "rating": 5}', '{"title": "Babe (1995)", "rating": 4}']
    (tmp_path / "my-films.jsonl").write_text("\n".join(lines) + "\n")
    assert len(commands()) >= 10
    on_the_run_of_the_readme = [line for line in commands(REPORT) + commands(STEERING) if line not in commands()]
    for line in commands() + on_the_run_of_the_readme:
        assert langptune(line, tmp_path, *overrides(shorter(line))).strip(), line
    (example,) = blocks("python", STEERING)
    assert "Slow science fiction." in python(example, tmp_path)
    mine = tmp_path / "runs" / "mine"
    results = json.loads((mine / "results.json").read_text())
    assert list(results["methods"]) == ["Random", "MP", "EMB-0", "LangPTune-0", "LangPTune"]
    assert results["num_sessions"] == SHORTER["evaluation.max_sessions"]
    assert (mine / "report.html").stat().st_size > 10_000
    steps = [json.loads(line)["step"] for line in (mine / "metrics.jsonl").read_text().splitlines()]
    assert max(steps) == 6
    compared = json.loads((tmp_path / "runs" / "compared" / "comparison.json").read_text())
    assert [row["name"] for row in compared["rows"] if row["group"] == "Profile-based"] == [
        *("LangPTune-0", "LangPTune-CL", "LangPTune"),
        *("LangPTune-0, sampled", "LangPTune-CL, sampled", "LangPTune, sampled"),
    ]


@pytest.mark.parametrize("page", [README, EVALUATION], ids=["README", "evaluation"])
def test_the_python_examples_run(tmp_path, page):
    examples = blocks("python", page)
    assert examples
    for example in examples:
        assert python(example, tmp_path).strip()


def test_the_page_on_data_is_true(tmp_path):
    """Its commands and its example run on small files of the forms that it names."""
    raw = tmp_path / "raw"
    raw.mkdir()
    meta = [{"parent_asin": f"B{i}", "title": f"Film {i}", "categories": ["Drama"]} for i in range(9)]
    reviews = [
        {"parent_asin": f"B{i}", "user_id": f"U{u}", "rating": 4.0, "timestamp": 1_400_000_000_000 + i, "text": "Good."}
        for u in range(30)
        for i in range(9)
    ]
    for name, rows in (("meta_Movies_and_TV", meta), ("Movies_and_TV", reviews)):
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (raw / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (raw / "items.csv").write_text("sku,title\n" + "".join(f"B{i},Item {i}\n" for i in range(9)))
    bought = [f"U{u},B{i},{1_400_000_000 + i}" for u in range(30) for i in range(9)]
    (raw / "interactions.csv").write_text("\n".join(["customer,sku,timestamp", *bought]) + "\n")
    assert len(commands(DATA)) == 3
    for line in commands(DATA):
        assert langptune(line, tmp_path).strip(), line
    assert (tmp_path / "data" / "films-histograms").is_dir()
    (example,) = blocks("python", DATA)
    assert "Film" in python(example, tmp_path)
    (template,) = blocks("jinja", DATA)
    (tmp_path / "mine.jinja").write_text(template)
    columns = "--column item_id=sku --column user_id=customer"
    langptune(f"langptune data prepare csv mine --path raw --template mine.jinja {columns}", tmp_path)
    shown = langptune("langptune data inspect mine --prompts 1 --no-plots", tmp_path)
    assert "played the following board games" in shown
    assert shown.count("Title: Item") >= 4


def test_the_page_on_comparisons_is_true(tmp_path):
    (line,) = commands(COMPARE)
    assert "| EASE " in langptune(line, tmp_path, *overrides(shorter(line)))
    for name in ("comparison.html", "comparison.md", "comparison.tex", "comparison.json"):
        assert f"`{name}`" in COMPARE
        assert (tmp_path / "runs" / "compared" / name).is_file()


@pytest.mark.parametrize("page", [START, TRAINING, DISTRIBUTED], ids=["index", "training", "distributed"])
def test_commands_that_need_no_run(tmp_path, page):
    assert commands(page)
    for line in commands(page):
        assert langptune(line, tmp_path).strip(), line


def test_the_trained_models_load_in_their_own_libraries(tmp_path):
    from sentence_transformers import SentenceTransformer
    from transformers import AutoModelForCausalLM

    few = {"evaluation.max_sessions": 2, "evaluation.validation_sessions": 1, "evaluation.samples": 0}
    shorter = overrides({**SHORTER, **few, "profile.max_tokens": 4, "embedder.dim": 128, "engine.precision": "bf16"})
    langptune("langptune train --output run", tmp_path, *shorter)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "policy").num_parameters() == 134_515_008
    embedder = SentenceTransformer(str(tmp_path / "run" / "embedder"), device="cpu")
    assert embedder.encode(["A film."]).shape == (1, 128)
    for model in ("policy", "embedder"):
        assert "library_name" in (tmp_path / "run" / model / "README.md").read_text()


def test_the_tables_stand_beside_their_commands():
    """The README shows its seeds, the command that made them, and no placeholder."""
    assert "--output runs/seed-0 --set seed=0" in README
    assert "with 1 and 2" in README
    assert "{{" not in README
