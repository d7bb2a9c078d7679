"""The data set that several runs or methods of one experiment share."""

from __future__ import annotations

from pathlib import Path

from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset
from langptune_rs.runs.folder import data_folder, opened_data, resolved_data


def prepared(config: RunConfig, output: Path) -> tuple[Dataset, Path]:
    """The data set of a recipe and its folder: a prepared one is read where it is, any other is in `output`/data.

    Raises `ConfigError` for settings that a prepared one was not made with, and what `open_source` raises.
    """
    config = resolved_data(config)
    folder = data_folder(config, output)
    return opened_data(config, folder), folder
