"""Raw logs in, a catalog and sessions out.

`prepare` writes a data set to a folder, `load` opens it, and `open_source` does whichever of the two is needed.
Names are imported when they are first used, so that importing this package needs no table library.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langptune_rs.data.inspection.inspect import inspect_dataset
    from langptune_rs.data.preparing.history import read_history
    from langptune_rs.data.preparing.pipeline import open_source, prepare, resolve_config
    from langptune_rs.data.store.catalog import Catalog
    from langptune_rs.data.store.dataset import Dataset
    from langptune_rs.data.store.folder import load
    from langptune_rs.data.store.sessions import Sessions
    from langptune_rs.data.wording.templates import PromptStyle, Template

_HOMES = {
    "Catalog": "store.catalog",
    "Dataset": "store.dataset",
    "PromptStyle": "wording.templates",
    "Sessions": "store.sessions",
    "Template": "wording.templates",
    "inspect_dataset": "inspection.inspect",
    "load": "store.folder",
    "open_source": "preparing.pipeline",
    "prepare": "preparing.pipeline",
    "read_history": "preparing.history",
    "resolve_config": "preparing.pipeline",
}

__all__ = [
    "Catalog",
    "Dataset",
    "PromptStyle",
    "Sessions",
    "Template",
    "inspect_dataset",
    "load",
    "open_source",
    "prepare",
    "read_history",
    "resolve_config",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
