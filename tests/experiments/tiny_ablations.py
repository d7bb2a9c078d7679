"""`langptune ablate` with a tiny recipe."""

from pathlib import Path

from tests.experiments.tiny import make_models, tiny_config, write_source
from typer.testing import CliRunner

from langptune_cli.app import app
from langptune_rs.config import to_toml

LIVELY = (
    "profile.temperature=8",
    "rlso.overlong_penalty=0",
    "rlso.learning_rate=0.1",
    "contrastive.learning_rate=0.01",
)
"""What makes tiny models write other profiles every time, and learn within a step."""
SHORT = (
    "iterations=1",
    "contrastive.steps=1",
    "rlso.steps=2",
    "evaluation.validation_sessions=0",
    *LIVELY,
    "logging.tensorboard=false",
)


def make_recipe(folder: Path) -> Path:
    """A recipe of tiny models."""
    config = tiny_config(*make_models(folder), write_source(folder / "source"), "LangPTune", {"samples": 1})
    path = folder / "tiny.toml"
    path.write_text(to_toml(config), encoding="utf-8")
    return path


def ablate(recipe: Path, what: str, output: Path, *options: str, settings: tuple[str, ...] = SHORT):
    """The command, with `settings` of the recipe."""
    given = [part for setting in settings for part in ("--set", setting)]
    return CliRunner().invoke(app, ["ablate", what, "--config", str(recipe), "--output", str(output), *given, *options])
