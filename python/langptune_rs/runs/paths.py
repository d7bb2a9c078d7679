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
from langptune_rs.data.sources import published
from langptune_rs.data.sources.registry import SOURCES
from langptune_rs.data.store.folder import is_prepared
from langptune_rs.errors import RunError
from langptune_rs.models.weights import EMBEDDERS, POLICIES


def absolute_paths(config: RunConfig, run: RunConfig | None = None) -> RunConfig:
    """A configuration whose paths are absolute. A name stays, and so does a path where nothing is.

    To go on with a `run`, give its own configuration: what is a name there is one here.
    """

    def absolute(key: str, value: str) -> str:
        is_name_in_run = run is not None and value == run.value_of(key) and _may_be_name(key, value)
        return value if is_name_in_run else _there(key, Path(value).expanduser()) or value

    return _replaced(config, absolute)


def is_name(key: str, value: str) -> bool:
    """Whether the value of a run's key is the name of something, such as ml-100k, and no path."""
    return _IS_NAME[key](value)


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
        if started_in is None and is_name(key, value) and is_prepared(run / "data"):
            return value  # a run that prepared its data itself was given no folder
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
    values = {key: value for key in _IS_NAME if isinstance(value := config.value_of(key), str)}
    may_be_paths = {
        key: value
        for key, value in values.items()
        if not is_name(key, value) or (key == "data.source" and is_prepared(Path(value)))
    }
    return config.with_values({key: new(key, value) for key, value in may_be_paths.items()})


_IS_NAME: dict[str, Callable[[str], bool]] = {
    "data.source": lambda value: value in SOURCES or value == published.NAME,
    "data.template": lambda value: value in TEMPLATES,
    "policy.model": lambda value: value.lower() in POLICIES,
    "embedder.model": lambda value: value.lower() in EMBEDDERS,
}
"""Each key that may be a path, and what tells that its value is a name."""
_MODELS = {"policy.model": "config.json", "embedder.model": "modules.json"}
"""The file that marks the folder of a model."""


def _may_be_name(key: str, value: str) -> bool:
    """Whether a value can be a name or a hub id."""
    return is_name(key, value) or (key in _MODELS and not value.startswith((".", "~", "/")))


def _is_surely(key: str, path: Path) -> bool:
    """Whether `path` can be nothing else than what `key` names, as its own files say."""
    if key == "data.source":
        return is_prepared(path)
    return path.is_file() if key == "data.template" else (path / _MODELS[key]).is_file()


def _there(key: str, path: Path) -> str | None:
    """`path` as an absolute one, if what `key` names is there. Links are not followed."""
    is_there = path.is_file() if key == "data.template" else path.is_dir()
    return os.path.normpath(path.absolute()) if is_there else None
