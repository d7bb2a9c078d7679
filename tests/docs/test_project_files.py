"""The files that other programs read of this project: workflows, templates, hooks, the citation."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FILES = [
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
    *sorted((ROOT / ".github").rglob("*.yml")),
]
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]["package"]["version"]


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_file_can_be_read(path):
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("name", ["ci", "wheels"])
def test_a_workflow_has_events_jobs_and_steps(name):
    workflow = read(ROOT / ".github" / "workflows" / f"{name}.yml")
    assert workflow[True], "YAML reads the word `on` as true"
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert all(("run" in step) != ("uses" in step) for step in job["steps"])


def test_ci_is_the_script_of_ci():
    steps = read(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]["lint-and-test"]["steps"]
    assert steps[-1] == {"run": ".ci/run"}


def test_wheels_are_built_for_every_platform_and_their_tests_are_there():
    job = read(ROOT / ".github" / "workflows" / "wheels.yml")["jobs"]["wheel"]
    assert [row["name"] for row in job["strategy"]["matrix"]["include"]] == [
        *("linux-x86_64", "linux-aarch64", "macos", "windows")
    ]
    (tests,) = (step["run"] for step in job["steps"] if "pytest" in step.get("run", ""))
    named = [word for word in tests.split() if word.startswith("tests/")]
    assert named
    assert all((ROOT / word).is_file() for word in named)


@pytest.mark.parametrize("name", ["bug", "idea"])
def test_a_form_for_issues_has_what_the_host_asks_for(name):
    form = read(ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml")
    assert {"name", "description", "body"} <= form.keys()
    assert len({field["id"] for field in form["body"]}) == len(form["body"])


def test_hooks_use_the_tools_of_the_environment():
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff-check", "ruff-format", "cargo-fmt", "mypy"]
    assert all(hook["language"] == "system" for hook in repository["hooks"])


def test_the_citation_is_of_this_version_and_of_the_paper():
    citation = read(ROOT / "CITATION.cff")
    assert citation["version"] == VERSION
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert citation["preferred-citation"]["title"] in readme
    assert citation["preferred-citation"]["url"] in readme


def test_a_release_is_checked_against_the_version_of_the_package():
    """The check that the workflow runs, with the tag of this version and of another one."""
    steps = read(ROOT / ".github" / "workflows" / "wheels.yml")["jobs"]["release"]["steps"]
    (check,) = (step["run"] for step in steps if "GITHUB_REF_NAME#v" in step.get("run", ""))
    for tag, code in ((f"v{VERSION}", 0), ("v0.0.0", 1)):
        done = subprocess.run(["bash", "-c", check], cwd=ROOT, env={**os.environ, "GITHUB_REF_NAME": tag}, check=False)
        assert done.returncode == code
