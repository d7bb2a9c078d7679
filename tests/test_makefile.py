"""What `make lint` does where the standard library of another CPU cannot be had, and what `make test` runs."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def path_without_targets(tmp_path):
    """A PATH whose rustup adds nothing, whose rustc knows no library, and whose cargo must not be called."""
    for name, script in {"rustup": "exit 1", "rustc": "echo /nowhere", "cargo": "echo linted"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    return f"{tmp_path}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize(("variable", "fails"), [({}, False), ({"CI": ""}, False), ({"CI": "true"}, True)])
def test_a_target_that_cannot_be_added_fails_in_ci_alone(path_without_targets, variable, fails):
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "MAKEFLAGS")}
    done = subprocess.run(
        ["make", "lint-aarch64"],
        cwd=ROOT,
        env={**environment, "PATH": path_without_targets, **variable},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Not linted for aarch64-unknown-linux-gnu" in done.stdout
    assert "linted\n" not in done.stdout.splitlines(keepends=True)
    assert (done.returncode != 0) == fails, done.stderr


def test_the_ci_script_is_ci(tmp_path):
    (tmp_path / "make").write_text("#!/bin/sh\necho CI is $CI in make $@\n")
    (tmp_path / "make").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "CI"}
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / ".ci" / "run"],
        env={**environment, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "CI is true in make lint test test-long\n"


@pytest.mark.parametrize(("marker", "folders"), [("alone", {"core"}), ("long", {"invariance", "benches"})])
def test_every_test_that_runs_by_itself_is_where_make_looks_for_it(marker, folders):
    files = [file for file in (ROOT / "tests").rglob("test_*.py") if file != Path(__file__)]
    marked = [file for file in files if f"pytest.mark.{marker}" in file.read_text(encoding="utf-8")]
    assert marked
    assert {file.parent for file in marked} == {ROOT / "tests" / folder for folder in folders}
