"""The paths that a run's configuration names: absolute in `config.toml`, and found again when a run has moved.

A path that a recipe or an override gives is relative to the working folder, in which the run is started. The run writes
it down as an absolute one, so that it can be opened from any folder. What is not there any more is looked for where
it would be if it had moved together with the run. What stays relative in `config.toml` is a name: that of a source, of
an embedded model, of a template, or a hub id.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from langptune_rs.config import RunConfig
from langptune_rs.config.data import TEMPLATES
from langptune_rs.config.section import Section
from langptune_rs.data.sources import published
from langptune_rs.data.sources.registry import SOURCES
from langptune_rs.data.store.folder import is_prepared
from langptune_rs.errors import RunError
from langptune_rs.models.weights import EMBEDDERS, POLICIES


def absolute_paths(config: RunConfig) -> RunConfig:
    """A configuration whose paths are absolute. A name stays, and so does a path where nothing is."""
    return _replaced(config, lambda key, value: _there(key, Path(value).expanduser()) or value)


def without_folders(config: RunConfig) -> RunConfig:
    """A configuration to publish: of each path only the last part, since the rest means nothing elsewhere."""
    return _replaced(config, lambda _, value: Path(value).name if Path(value).is_absolute() else value)


def found_paths(config: RunConfig, run: Path, started_in: Path | None) -> RunConfig:
    """The configuration of a run whose folder was `started_in`, with its paths where they are now.

    Without `started_in` the run may be of a version that wrote paths down as they were given: a relative one is looked
    for in the working folder, then in the run's folder and those above it.

    Raises `RunError` where the working folder has a folder of the name of a hub model, which would be loaded instead.
    """
    run = run.absolute()

    def find(key: str, value: str) -> str:
        path = Path(value).expanduser()
        if path.is_absolute():
            moved = None if started_in is None else Path(os.path.normpath(run / os.path.relpath(path, started_in)))
            return value if path.exists() or moved is None else _there(key, moved) or value
        if started_in is None:
            above = (folder / path for folder in (run, *run.parents) if _is_surely(key, folder / path))
            return _there(key, path) or next((str(place) for place in above), value)
        if key in _MODELS and _there(key, path):
            raise RunError(
                f"{key} = {value!r} is a hub id in {run}, but the working folder holds a folder {value}, which would "
                "be loaded instead. Run the command in another folder."
            )
        return value

    return _replaced(config, find)


def _replaced(config: RunConfig, new: Callable[[str, str], str]) -> RunConfig:
    """A configuration with another value for each key that may be a path, where it is not a name."""
    sections: dict[str, Section] = {}
    for key, is_name in _KEYS.items():
        section, name = key.split(".")
        before = sections.get(section, getattr(config, section))
        value = getattr(before, name)
        if value is not None and not is_name(value):
            before = before.model_copy(update={name: new(key, value)})
        sections[section] = before
    return config.model_copy(update=sections)


_KEYS: dict[str, Callable[[str], bool]] = {
    "data.source": lambda value: _is_source(value) and not is_prepared(Path(value)),
    "data.template": lambda value: value in TEMPLATES,
    "policy.model": lambda value: value.lower() in POLICIES,
    "embedder.model": lambda value: value.lower() in EMBEDDERS,
}
"""Each key that may be a path, and what tells that its value is a name."""
_MODELS = {"policy.model": "config.json", "embedder.model": "modules.json"}
"""The file that marks the folder of a model."""


def _is_source(value: str) -> bool:
    return value in SOURCES or value == published.NAME


def _is_surely(key: str, path: Path) -> bool:
    """Whether `path` can be nothing else than what `key` names, as its own files say."""
    if key == "data.source":
        return is_prepared(path)
    return path.is_file() if key == "data.template" else (path / _MODELS[key]).is_file()


def _there(key: str, path: Path) -> str | None:
    """`path` as an absolute one, if what `key` names is there. Links are not followed."""
    is_there = path.is_file() if key == "data.template" else path.is_dir()
    return os.path.normpath(path.absolute()) if is_there else None
