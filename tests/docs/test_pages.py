"""What the pages say is there: commands, tests, files and examples."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from langptune_cli.app import app
from langptune_rs.config import load_config

ROOT = Path(__file__).parents[2]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
}
CONTRIBUTED = set(re.findall(r"# (python/\S+\.py)\n", PAGES["CONTRIBUTING.md"]))
"""What a reader is about to write."""


def commands(page: str) -> list[str]:
    """Every line of code that calls the command, and every call that stands between backticks."""
    lines = re.findall(r"^(?: {4})*(langptune [a-z].*)$", page, flags=re.MULTILINE)
    inline = re.findall(r"`(langptune [a-z][^`]*)`", re.sub(r"\s+", " ", page))
    return [shlex.join(shlex.split(line, comments=True)) for line in [*lines, *inline]]


def test_every_command_of_every_page_exists_with_its_options():
    root = typer.main.get_command(app)
    checked = 0
    for name, page in PAGES.items():
        for line in commands(page):
            command, (first, *rest) = root, shlex.split(line)[1:]
            command = command.commands[first]
            if hasattr(command, "commands") and rest:
                command, rest = command.commands[rest[0]], rest[1:]
            options = {option for parameter in command.params for option in parameter.opts}
            for argument in rest:
                if argument.startswith("-"):
                    assert argument in {*options, "--help"}, f"{name}: {line}"
            checked += 1
    assert checked >= 40


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CONTRIBUTING.md"])
def test_every_key_that_a_page_sets_is_a_key(page):
    for override in re.findall(r"--set\s+([a-z_.]+=[^\s`]+)", PAGES[page]):
        load_config("quickstart", [override])


@pytest.mark.parametrize("page", PAGES)
def test_files_and_tests_that_a_page_names_are_there(page):
    paths = re.findall(r"`((?:python|rust|tests|benches|cli|docs|examples)/[^\s`*]+)`", PAGES[page])
    for path in paths:
        file, _, test = path.partition("::")
        if file in CONTRIBUTED:
            continue
        assert (ROOT / file).exists(), f"{page} names {file}"
        if test:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{page} names {path}"


def test_every_invariant_names_what_holds_it():
    invariants = re.findall(r"^Architecture invariant: (.*?)(?=\n\n|\Z)", PAGES["docs/architecture.md"], re.M | re.S)
    assert len(invariants) >= 15
    assert all(re.search(r"Held by\s+`(tests|rust)/", invariant) for invariant in invariants)


def test_every_decision_has_the_four_parts_and_stands_in_the_index():
    pages = {name: page for name, page in PAGES.items() if name.startswith("docs/decisions/") and "index" not in name}
    assert len(pages) >= 18
    for name, page in pages.items():
        assert re.findall(r"^## (.*)$", page, re.M) == ["Question", "Choices", "Decision", "Consequence"], name
        assert f"({Path(name).name})" in PAGES["docs/decisions/index.md"], name


def test_links_of_the_repository_lead_somewhere():
    """Links within the repository lead somewhere, also where the site does not look."""
    for name, page in PAGES.items():
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page):
            if not target.startswith("http"):
                there = (ROOT / name).parent / target
                assert there.exists() or target.startswith("reference/"), f"{name} links to {target}"
