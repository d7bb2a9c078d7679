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


def build(config: Path, site: Path, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [MKDOCS, "build", "--quiet", *options, "--config-file", config, "--site-dir", site],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site, built as `make docs` builds it."""
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT / "mkdocs.yml", folder, "--strict")
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


def test_a_broken_link_ends_a_strict_build(tmp_path):
    docs = tmp_path / "docs"
    shutil.copytree(ROOT / "docs", docs)
    (docs / "index.md").write_text("[nowhere](nowhere.md)\n", encoding="utf-8")
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for path in ("docs/site_hooks.py", "docs/fenced_examples.py", "python"):
        config = config.replace(f"- {path}", f"- {ROOT / path}").replace(f"[{path}]", f"[{ROOT / path}]")
    (tmp_path / "mkdocs.yml").write_text(config, encoding="utf-8")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site", "--strict")
    assert done.returncode != 0
    assert "nowhere.md" in done.stdout + done.stderr


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
