"""A run that an earlier version began goes on as it began, whatever recipe it is resumed with."""

import re
from pathlib import Path

import pytest
from tests.models.chats import CHATML, LLAMA_3, QWEN_3, of_family

from langptune_rs.baselines.langptune import LangPTune
from langptune_rs.config import RunConfig, load_config, to_toml
from langptune_rs.errors import RunError
from langptune_rs.models.chat_template import ChatTemplate
from langptune_rs.runs.folder import CONFIG, opened_run, read_config

BF16 = "engine.precision=bf16"
"""In which an earlier version also trained."""
NEW_KEYS = ("item_prompt", "template_arguments", "thinking", "date")


def of_before(config: RunConfig) -> str:
    """`config` as an earlier version wrote it."""
    text = re.sub(rf"(?m)^({'|'.join(NEW_KEYS)}) = .*\n", "", to_toml(config))
    text = re.sub(r"(?m)^writes = .*\n|^\[description\]\n(\w.*\n)*\n", "", text)
    text = re.sub(r'(\[rlso\][^\[]*?)precision = "fp32"\n', r"\1", text)
    return text if "query_prompt" in text else text.replace("[embedder]\n", '[embedder]\nquery_prompt = ""\n')


def begun(folder: Path, template: str = CHATML, overrides: tuple[str, ...] = ()) -> Path:
    """A run of before that has logged its first numbers."""
    (folder / "policy").mkdir(parents=True)
    (folder / "policy" / "chat_template.jinja").write_text(template)
    (folder / CONFIG).write_text(of_before(load_config("quickstart", overrides)))
    (folder / "metrics.jsonl").write_text('{"step": 1}\n')
    return folder


def resume(run: Path, config: RunConfig) -> None:
    with opened_run(run, config, resume=True, overwrite=False):
        pass


def decided(config: RunConfig) -> tuple[str | None, str | None, str, str]:
    return (
        config.embedder.query_prompt,
        config.embedder.item_prompt,
        config.rlso.precision,
        config.policy.thinking,
    )


@pytest.mark.parametrize("first", ["its recipe", "its own configuration"])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_a_run_of_before_is_resumed_again_and_again(tmp_path, precision, first):
    override = f"engine.precision={precision}"
    run = begun(tmp_path / "run", QWEN_3, (override,))
    own = tmp_path / "own.toml"
    own.write_text((run / CONFIG).read_text())
    recipes = {
        "its recipe": lambda: load_config("quickstart", [override]),
        "its own configuration": lambda: load_config(own),
        "what the run has now": lambda: load_config(run / CONFIG),
    }
    then = ("", "", precision, "template")
    assert decided(read_config(run)) == then
    for name in (first, *recipes):
        resume(run, recipes[name]())
        assert decided(load_config(run / CONFIG)) == then
    assert decided(read_config(run)) == then


@pytest.mark.parametrize(
    "override",
    [
        "rlso.precision=fp32",
        "embedder.item_prompt=none",
        "embedder.query_prompt=none",
        'policy.thinking="off"',
        "seed=3",
    ],
)
@pytest.mark.parametrize("is_second", [False, True])
def test_what_a_recipe_says_itself_is_compared(tmp_path, override, is_second):
    run = begun(tmp_path / "run", QWEN_3, (BF16,))
    if is_second:
        resume(run, load_config("quickstart", [BF16]))
    with pytest.raises(RunError, match="was started with another configuration"):
        resume(run, load_config("quickstart", [BF16, override]))


def test_a_run_of_today_is_not_resumed_without_what_it_was_told(tmp_path):
    told = load_config("quickstart", ["embedder.query_prompt=q: "])
    with opened_run(tmp_path / "run", told, resume=False, overwrite=False):
        (tmp_path / "run" / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(RunError, match=r'- query_prompt = "q: "'):
        resume(tmp_path / "run", load_config("quickstart"))


def test_a_method_goes_on_with_a_run_of_before(tmp_path, monkeypatch):
    class ReachedError(Exception):
        pass

    def reached(folder: Path) -> None:
        assert decided(load_config(folder / CONFIG)) == ("", "", "bf16", "off")
        raise ReachedError

    monkeypatch.setattr("langptune_rs.baselines.langptune.train", reached)
    run = begun(tmp_path / "run", overrides=(BF16,))
    for _ in range(2):
        with pytest.raises(ReachedError):
            LangPTune(run).fit(None, load_config("quickstart", [BF16]), seed=0)


@pytest.mark.parametrize(("template", "thinking"), [(QWEN_3, "template"), (CHATML, "off")])
def test_a_policy_that_thought_goes_on_thinking(tmp_path, template, thinking):
    config = read_config(begun(tmp_path / "run", template))
    assert config.policy.thinking == thinking
    for family, begins in (("qwen 3", "<|im_start|>assistant\n"), ("chatml", "<|im_start|>assistant\n")):
        if family == "chatml" or thinking == "template":
            assert ChatTemplate(of_family(family), config.policy).prompt("Hi").after.endswith(begins)


def test_a_saved_method_of_before_goes_on_thinking(tmp_path):
    """Its folder has both models and a configuration, and nothing that a training logged."""
    run = begun(tmp_path / "run", QWEN_3)
    (run / "metrics.jsonl").unlink()
    assert read_config(run).policy.thinking == "template"


def test_a_run_without_work_is_as_today_s(tmp_path):
    (tmp_path / CONFIG).write_text(of_before(load_config("quickstart")))
    assert decided(read_config(tmp_path)) == ("", None, "fp32", "off")


def test_one_warning_says_that_a_date_is_not_known(tmp_path, capsys):
    run = begun(tmp_path / "run", LLAMA_3)
    read_config(run)
    assert read_config(run).policy.date == "2024-07-26"
    said = capsys.readouterr().err
    assert said.count("warning: ") == said.count("\n") == 1
    assert f"{run} was begun by a version that told the policy the date of the day and noted none" in said
    resume(run, load_config("quickstart", ["policy.date=2026-02-03"]))  # who knows it may say it, once
    assert read_config(run).policy.date == "2026-02-03"
    with pytest.raises(RunError, match='- date = "2026-02-03"'):
        resume(run, load_config("quickstart"))
    read_config(begun(tmp_path / "another", QWEN_3))
    assert not capsys.readouterr().err
