"""The recipes of CONTRIBUTING.md, followed to the letter in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.test_house import check_circles, check_directions, check_libraries

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def blocks(recipe: str, language: str) -> list[str]:
    """The blocks of code in a language under "## Add a ..."."""
    section = re.search(rf"^## {recipe}\n(.*?)(?=^## |\Z)", GUIDE, flags=re.MULTILINE | re.DOTALL)[1]
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", section, flags=re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, code in found]


def follow(recipe: str, copy: Path) -> None:
    """Write the files that a recipe shows and make its changes."""
    for code in blocks(recipe, "python"):
        path = copy / re.match(r"# (\S+)\n", code)[1]
        assert not path.exists()
        path.write_text(code.partition("\n")[2], encoding="utf-8")
    for change in blocks(recipe, "diff"):
        head, *hunks = change.split("@@\n")
        path = copy / head.split()[1]
        text = path.read_text(encoding="utf-8")
        for hunk in hunks:
            lines = hunk.splitlines()
            before, after = ("\n".join(line[1:] for line in lines if line[:1] != gone) for gone in "+-")
            assert text.count(before) == 1, f"{path} has not once:\n{before}"
            text = text.replace(before, after)
        path.write_text(text, encoding="utf-8")


@pytest.fixture
def copy(tmp_path):
    """The package in a folder that may be changed."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "python" / "langptune_rs", tmp_path / "python" / "langptune_rs", ignore=ignored)
    return tmp_path


def run(code: str, copy: Path) -> str:
    """What a program prints that uses the copy."""
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            f"import langptune_rs\nprint(langptune_rs.__file__)\n{textwrap.dedent(code)}",
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(copy / "python")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(copy)), "not the copy"
    return done.stdout.partition("\n")[2]


def test_a_baseline_ranks_a_tiny_data_set(copy):
    """And loads no library that only encoders of text need."""
    follow("Add a baseline", copy)
    printed = run(
        """
        import sys
        from pathlib import Path
        from tempfile import TemporaryDirectory

        import numpy as np
        from tests.baselines.test_baselines import make_dataset

        from langptune_rs.baselines.registry import METHODS, find_method

        data = make_dataset(200)
        data.sessions.ratings[:] = 1 + data.sessions.histories % 5
        TopRated = find_method("TopRated")
        method = TopRated()
        method.fit(data, TopRated.Config(prior=0.001), seed=0)
        ranks = method.score_targets(data.sessions).ranks
        with TemporaryDirectory() as folder:
            method.save(Path(folder))
            again = TopRated.open(Path(folder), data).score_targets(data.sessions)
            assert np.array_equal(again.ranks, ranks)
        best = data.sessions.targets % 5 == 4
        print(ranks.shape, int(ranks[best].max()) < int(ranks[~best].max()), "TopRated" in METHODS)
        assert "sentence_transformers" not in sys.modules
        """,
        copy,
    )
    assert printed.split("\n")[0] == "(200, 1) True True"


def test_a_source_is_prepared(copy):
    follow("Add a source", copy)
    raw = copy / "raw"
    raw.mkdir()
    artists = "".join(f"{i}\tArtist {i}\thttp://a/{i}\n" for i in range(12))
    (raw / "artists.dat").write_text("id\tname\turl\n" + artists)
    listened = "".join(f"{u}\t{i}\t{u + i}\n" for u in range(20) for i in range(12) if (u + i) % 3)
    (raw / "user_artists.dat").write_text("userID\tartistID\tweight\n" + listened)
    printed = run(
        f"""
        from langptune_rs.config.data import make_config
        from langptune_rs.data import prepare

        config = make_config(windows="all", max_item_tokens=None, max_history_tokens=None)
        data = prepare({str(raw)!r}, {str(copy / "data")!r}, config)
        print(data.info["source"]["name"], len(data.catalog), data.catalog.titles[0])
        """,
        copy,
    )
    assert printed == "lastfm 12 Artist 0\n"


def test_an_objective_is_found_by_its_recipe_key_and_raises_the_better_profile(copy):
    follow("Add an objective", copy)
    printed = run(
        """
        import torch

        from langptune_rs.config import load_config
        from langptune_rs.training.objectives import ScoredProfiles, find_objective

        config = load_config("quickstart", ["rlso.objective=pairwise_logistic"]).rlso
        logps = torch.zeros(3, 2, requires_grad=True)
        rewards = torch.tensor([[1.0, -1.0], [0.5, 0.5], [-1.0, 1.0]])
        losses = find_objective(config.objective)(ScoredProfiles(rewards, logps, torch.zeros(3, 2)), config)
        losses.sum().backward()
        print(tuple(losses.shape), logps.grad.sign().int().tolist())
        """,
        copy,
    )
    assert printed == "(3,) [[-1, 1], [0, 0], [1, -1]]\n"


@pytest.mark.parametrize("recipe", ["Add a baseline", "Add a source", "Add an objective"])
def test_the_code_of_a_recipe_passes_the_linter(copy, recipe):
    follow(recipe, copy)
    files = [copy / re.match(r"# (\S+)\n", code)[1] for code in blocks(recipe, "python")]
    ruff, config = Path(sys.executable).with_name("ruff"), ROOT / "pyproject.toml"
    for arguments in (["check"], ["format", "--check"]):
        command = [ruff, *arguments, "--no-cache", "--config", config, *files]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("check", [check_directions, check_circles, check_libraries])
def test_the_code_of_all_recipes_stands_in_its_room(copy, check):
    for recipe in ("Add a baseline", "Add a source", "Add an objective"):
        follow(recipe, copy)
    check((copy / "python" / "langptune_rs",))
