"""The command as a whole: what it lists, what it loads, and how it ends."""

import errno
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

import langptune_rs
from langptune_rs.config import RunConfig, load_config

COMMANDS = ("data", "train", "evaluate", "profile", "recommend", "report", "serve", "config")
PYTHON_COMMAND = [sys.executable, "-c", "from langptune_cli.app import main; main()"]


def test_help_lists_every_command_and_each_has_its_own(langptune):
    shown = langptune("--help")
    assert shown.exit_code == 0
    for command in COMMANDS:
        assert command in shown.stdout
        assert langptune(command, "--help").exit_code == 0


def test_help_loads_nothing_heavy():
    heavy = ("torch", "transformers", "polars", "deepspeed", "matplotlib", "fastapi", "sqlalchemy")
    code = f"import sys; from langptune_cli.app import app; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_installed_command_prints_what_a_program_can_read():
    done = subprocess.run([*PYTHON_COMMAND, "config", "show", "--set", "seed=7"], capture_output=True, check=True)
    assert RunConfig.model_validate(tomllib.loads(done.stdout.decode())) == load_config("quickstart", ["seed=7"])


def test_the_installed_command_ends_with_2_on_wrong_input():
    done = subprocess.run([*PYTHON_COMMAND, "train", "--set", "rlso.lr=1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: There is no key 'rlso.lr' in a recipe. Did you mean 'rlso.learning_rate'?\n"


def test_every_part_has_the_version_of_cargo_toml(langptune):
    root = Path(__file__).parents[2]
    stated = tomllib.loads((root / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"]
    assert langptune("--version").stdout == f"langptune {stated}\n"
    assert langptune_rs.__version__ == version("langptune") == stated
    for project in ("pyproject.toml", "cli/pyproject.toml"):
        assert "version" in tomllib.loads((root / project).read_text(encoding="utf-8"))["project"]["dynamic"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES])
def test_a_file_system_that_refuses_is_named(error_of, monkeypatch, number):
    def refuse(run):
        raise OSError(number, "no", str(run / "report.html"))

    monkeypatch.setattr("langptune_rs.experiments.report.report.write_report", refuse)
    assert error_of("report", "some/run") == "error: some/run/report.html cannot be written or read: no."


def test_a_fault_of_ours_keeps_its_traceback(langptune, monkeypatch):
    def fail(run):
        raise FileNotFoundError(errno.ENOENT, "no such file", "lost")

    monkeypatch.setattr("langptune_rs.experiments.report.report.write_report", fail)
    with pytest.raises(FileNotFoundError):
        langptune("report", "some/run")


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "nowhere"),
        ("report", "nowhere"),
        ("serve", "nowhere", "--port", "0"),
        ("profile", "nowhere", "--user", "1"),
        ("recommend", "nowhere", "--profile", "quiet films"),
    ],
)
def test_a_folder_that_holds_no_run_is_refused(error_of, arguments):
    assert "nowhere" in error_of(*arguments)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (("profile", "run"), 0),
        (("profile", "run", "--user", "1", "--history", "file"), 2),
        (("recommend", "run"), 0),
        (("recommend", "run", "--user", "1", "--profile", "quiet films"), 2),
    ],
)
def test_exactly_one_of_two_options_is_needed(langptune, arguments, count):
    result = langptune(*arguments)
    assert result.exit_code == 2
    assert f"{count} were given" in " ".join(result.stderr.replace("│", " ").split())
