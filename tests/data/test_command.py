"""`langptune data prepare` as a user types it."""

import json

import pytest
import typer
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.config.data import DataConfig
from langptune_rs.data import load


@pytest.fixture
def command(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(app, ["data", "prepare", *map(str, arguments)])


def test_the_counts_are_shown(command, tmp_path):
    result = command("ml-100k", "out")
    assert result.exit_code == 0
    assert "5-core                    943          1349         99287" in result.stdout
    assert "removed 0 users with fewer than 5 interactions\nremoved 333 items with fewer than 5" in result.stdout
    assert "removed 0 items without a title, description or category\nkept 0 interactions that" in result.stdout
    assert "sessions: 793 train, 75 validation, 75 test" in result.stdout
    assert "test targets never in train: 4" in result.stdout
    assert len(load(tmp_path / "out").sessions) == 943


def test_options_reach_the_data_set_and_json_is_its_info(command, logs, tmp_path):
    result = command(
        "jsonl", "out", "--path", logs, "--split", "leave-last-out", "--seed", 3, "--min-interactions", 2,
        "--history-length", 3, "--template", "products", "--json",
    )  # fmt: skip
    info = json.loads(result.stdout)
    assert info == load(tmp_path / "out").info
    assert info["config"] == {
        "compat": "paper",
        "on_bad_line": "error",
        "max_item_tokens": 512,
        "max_history_tokens": 1024,
        "template": "products",
        "split": "leave-last-out",
        "windows": "all",
        "seed": 3,
        "min_interactions": 2,
        "history_length": 3,
    }


def test_the_keys_of_the_configuration_are_options_with_the_same_defaults():
    command = typer.main.get_command(app).commands["data"].commands["prepare"]
    options = {option.name: option for option in command.params}
    for key, field in DataConfig.model_fields.items():
        if key not in ("source", "max_sessions", "train_share", "num_targets"):
            assert (options[key].opts, options[key].default) == ([f"--{key.replace('_', '-')}"], field.default)
            assert options[key].help.startswith(field.description.replace("`", "").split()[0])


def test_a_limit_of_0_keeps_all(command, logs, tmp_path):
    assert command(logs, "out", "--max-item-tokens", 0, "--max-history-tokens", 0).exit_code == 0
    assert not {"max_item_tokens", "max_history_tokens"} & load(tmp_path / "out").info["config"].keys()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("netflix", "out"), "There is no source 'netflix'"),
        (("jsonl", "out"), "The source jsonl needs its items"),
        (("ml-100k", "out", "--split", "leave-last-out", "--windows", "last"), "needs several sessions per user"),
        (("ml-100k", "out", "--min-interactions", "1000"), 'Nothing is left after the step "1000-core"'),
    ],
)
def test_what_cannot_work_is_said_in_one_line(command, arguments, message):
    result = command(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_a_data_set_is_replaced_only_when_asked(command, logs, tmp_path):
    assert command(logs, "out").exit_code == 0
    assert command(logs, "out").exit_code == 0
    refused = command(logs, "out", "--seed", 1)
    assert (refused.exit_code, "seed = 0 there, 1 here" in refused.stderr) == (2, True)
    assert command(logs, "out", "--seed", 1, "--overwrite").exit_code == 0
    assert load(tmp_path / "out").info["config"]["seed"] == 1
