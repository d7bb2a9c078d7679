"""Which public names of the reference have no docstring. Sources are read, not imported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import griffe

PYTHON = Path(__file__).parents[1] / "python"
ROOMS = (
    *("arrays", "errors", "files", "packing", "progress", "seeds", "config", "evaluation", "data", "distributed"),
    *("models", "recommending", "rollout", "runs", "training", "baselines", "experiments", "serving"),
)
REFERENCE = ("langptune_rs", *(f"langptune_rs.{room}" for room in ROOMS))
"""The package and its rooms: what the pages of the reference show, and what its readers meet in the source."""


Thing = griffe.Object | griffe.Alias


def undocumented(names: Sequence[str] = REFERENCE, folder: Path = PYTHON) -> list[str]:
    """Dotted names, sorted, of the modules, classes, functions and methods in `names` that have no docstring.

    Where a module has `__all__`, its public names are those; elsewhere all that do not begin with an underscore.
    """
    loader = griffe.GriffeLoader(search_paths=[folder], allow_inspection=False)
    root = loader.load(names[0].partition(".")[0])
    loader.resolve_aliases(implicit=True)
    found = set()
    for name in names:
        found |= set(_without_docstring(root[name.partition(".")[2]] if "." in name else root))
    return sorted(found)


def _without_docstring(thing: Thing) -> Iterator[str]:
    if not thing.has_docstring and (not thing.is_attribute or "property" in thing.labels):
        yield thing.path
    for member in _public_members(thing):
        yield from _without_docstring(member)


def _public_members(thing: Thing) -> list[Thing]:
    """What a reader of the reference meets in a module or class."""
    if thing.is_module and thing.exports is not None:
        exported = [thing.members[str(name)] for name in thing.exports]
        return [member.final_target if isinstance(member, griffe.Alias) else member for member in exported]
    if thing.is_module or thing.is_class:
        return [m for name, m in thing.members.items() if not name.startswith("_") and not m.is_alias]
    return []
