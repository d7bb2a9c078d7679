"""Running the command as a user types it, in this process."""

from collections.abc import Callable

import pytest
from typer.testing import CliRunner, Result

from langptune_cli.app import app


@pytest.fixture
def langptune(monkeypatch, tmp_path) -> Callable[..., Result]:
    """`langptune("config", "list")` in an empty working folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, input: str | None = None) -> Result:
        typed = [str(argument) for argument in arguments]
        return CliRunner().invoke(app, typed, input=input, catch_exceptions=False)

    return run


@pytest.fixture
def error_of(langptune) -> Callable[..., str]:
    """What a command that must fail says: one paragraph on stderr, nothing on stdout, exit code 2."""

    def run(*arguments: object) -> str:
        result = langptune(*arguments)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("error: ")
        assert "Traceback" not in result.stderr
        return result.stderr.strip()

    return run
