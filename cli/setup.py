"""Takes the version from the workspace's Cargo.toml, where the whole repository states it once."""

import tomllib
from pathlib import Path

from setuptools import setup

workspace = tomllib.loads((Path(__file__).parents[1] / "Cargo.toml").read_text(encoding="utf-8"))["workspace"]
setup(version=workspace["package"]["version"])
