"""The data set that several runs or methods of one experiment share."""

from __future__ import annotations

from pathlib import Path

from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset, open_source
from langptune_rs.data.store.folder import is_prepared
from langptune_rs.models.tokens import token_counters


def prepared(config: RunConfig, output: Path) -> tuple[Dataset, Path]:
    """The data set of a recipe and its folder: a prepared one is read where it is, any other is in `output`/data.

    Raises what `open_source` raises.
    """
    counters = token_counters(config.embedder.model, config.policy.model)
    dataset = open_source(config.data, output / "data", counters)
    return dataset, Path(config.data.source) if is_prepared(Path(config.data.source)) else output / "data"
