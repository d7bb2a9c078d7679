"""The site: what must be documented is, what code describes comes from it, and nothing is fetched from elsewhere."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MKDOCS = Path(sys.executable).with_name("mkdocs")


def build(project: Path, site: Path) -> subprocess.CompletedProcess:
    """Build the site of `project` as `make docs` does."""
    return subprocess.run(
        [MKDOCS, "build", "--strict", "--site-dir", site],
        cwd=project,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_a_page_fetches_nothing_from_another_host(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        fetched = re.findall(r'<(?:script|img|link|iframe)\b[^>]*(?:src|href)="(https?:[^"]*)"', text)
        assert not fetched, page
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\(\s*[\"']?https?:", style.read_text(encoding="utf-8")), style


def test_every_key_and_every_command_is_on_its_page(site):
    from langptune_rs.config import RunConfig

    keys = (site / "reference" / "recipe" / "index.html").read_text(encoding="utf-8")
    sections = {name: field.annotation for name, field in RunConfig.model_fields.items()}
    for name, section in sections.items():
        for key in getattr(section, "model_fields", ()):
            assert f"<code>{name}.{key}</code>" in keys
    commands = (site / "reference" / "commands" / "index.html").read_text(encoding="utf-8")
    for command in ("train", "evaluate", "data prepare", "data inspect", "config show"):
        assert f"langptune {command}" in commands


def test_every_public_name_is_in_the_reference(site):
    import langptune_rs
    from langptune_rs import data, evaluation

    for page, package in (("core", langptune_rs), ("evaluation", evaluation), ("data", data)):
        text = (site / "reference" / page / "index.html").read_text(encoding="utf-8")
        for name in package.__all__:
            assert f'id="{package.__name__}.{name}"' in text, f"{package.__name__}.{name}"


def test_a_broken_link_and_a_name_without_a_docstring_end_the_build(tmp_path):
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    for folder in ("python", "cli"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    (tmp_path / "docs" / "index.md").write_text("[nowhere](nowhere.md)\n", encoding="utf-8")
    with (tmp_path / "docs" / "public_names.py").open("a", encoding="utf-8") as names:
        names.write('\n\ndef undocumented():\n    return ["shop.Till.open"]\n')
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert "shop.Till.open is public and has no docstring" in done.stderr
    assert "a link 'nowhere.md'" in done.stderr


def test_lint_builds_the_site_and_counts_its_warnings():
    """With --quiet mkdocs counts none, and a strict build never fails."""
    done = subprocess.run(["make", "--dry-run", "lint"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    (line,) = (line for line in done.stdout.splitlines() if "mkdocs" in line)
    assert "--strict" in line
    assert "--quiet" not in line


def test_a_name_without_a_docstring_is_found(tmp_path):
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from public_names import undocumented
    finally:
        sys.path.pop(0)
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text('"""A shop."""\nfrom shop.till import Till\n__all__ = ["Till"]\n')
    (package / "till.py").write_text(
        '"""A till."""\n\n\nclass Till:\n    """Takes money."""\n\n    def open(self):\n        pass\n\n'
        "    def _lock(self):\n        pass\n\n\ndef count():\n    pass\n"
    )
    assert undocumented(["shop"], tmp_path) == ["shop.till.Till.open"]
    assert undocumented(["shop", "shop.till"], tmp_path) == ["shop.till.Till.open", "shop.till.count"]
    assert undocumented() == []
