"""Lets another environment import this one's torch: python benches/conformance/share_torch.py ENVIRONMENT.

Both sides of a comparison then train with the same build of torch, and no environment holds its 5 GB again. Links to
torch and to what it requires are made in the folder `torch` of ENVIRONMENT, and a .pth file puts that folder last on
its path: whatever the environment has installed itself comes first. What it has is not linked, so that no package is
there in two versions. Both environments must be of one Python version.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from langptune_rs.errors import InputError


def required(name: str, found: dict[str, Distribution] | None = None) -> dict[str, Distribution]:
    """The distribution of that name and all that it requires here, by canonical name."""
    found = {} if found is None else found
    key = canonicalize_name(name)
    if key in found:
        return found
    found[key] = distribution(name)
    for line in found[key].requires or ():
        requirement = Requirement(line)
        extras = ["", *requirement.extras]
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras):
            required(requirement.name, found)
            for extra in requirement.extras:
                for inner in map(Requirement, found[canonicalize_name(requirement.name)].requires or ()):
                    if inner.marker and inner.marker.evaluate({"extra": extra}):
                        required(inner.name, found)
    return found


def top_entries(installed: Distribution) -> Iterator[Path]:
    """The files and folders of site-packages that a distribution has filled."""
    names = {file.parts[0] for file in installed.files or () if file.parts[0] not in ("..", "__pycache__")}
    for name in sorted(names):
        yield Path(str(installed.locate_file(name)))


def site_packages(environment: Path) -> Path:
    """Where an environment keeps its packages. Raises `InputError` for a folder that is none."""
    found = sorted(environment.glob("lib/python*/site-packages"))
    if not found:
        raise InputError(f"{environment} has no lib/python*/site-packages. Make it by python -m venv {environment}.")
    return found[-1]


def share(environment: Path) -> list[str]:
    """Link torch and what it requires into `environment`; the names of what is linked."""
    site = site_packages(environment)
    folder = environment / "torch"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    own = {
        canonicalize_name(path.name.split("-")[0]) for path in site.glob("*.dist-info") if path.name != "pip.dist-info"
    }
    linked = []
    for name, installed in required("torch").items():
        if name in own:
            continue
        for entry in top_entries(installed):
            link = folder / entry.name
            if entry.exists() and not link.exists():
                link.symlink_to(entry.resolve())
        linked.append(name)
    (site / "shared_torch.pth").write_text(f"{folder.resolve()}\n")
    return linked


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("environment", type=Path)
    share(parser.parse_args().environment)
