"""A finished run, opened again: its configuration, its data set, and its models before and after training."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch

from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset
from langptune_rs.distributed.collectives import after_first_rank
from langptune_rs.errors import RunError
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.policy import Policy
from langptune_rs.models.precision import COMPUTE_DTYPES
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.runs.folder import open_dataset, read_config
from langptune_rs.runs.saved_models import check_saved, version_of_saved

MODELS = ("policy", "embedder")
"""The folders of the trained models in a run's folder."""


class TrainedRun:
    """What a run left in its folder. Each call reads a model anew; the caller decides how long it stays in memory."""

    def __init__(self, folder: Path, config: RunConfig):
        self.folder, self.config = folder, config

    @classmethod
    def open(cls, folder: str | Path, models: Sequence[str] = MODELS) -> TrainedRun:
        """The run in `folder`.

        Raises `RunError` when there is none, when it writes no profiles, and when one of the trained `models` is
        missing.
        """
        folder = Path(folder)
        config = read_config(folder)
        if config.writes != "profiles":
            raise RunError(
                f"{folder} holds a policy that writes {config.writes} of items, not profiles of users. Give the "
                "--output folder of `langptune train`; `langptune describe` judges this one."
            )
        for name in models:
            if not (folder / name).is_dir():
                raise RunError(
                    f"{folder} has no trained {name}: there is no folder {name} in it, so training has not finished. "
                    f"Continue it with `langptune train --output {folder} --resume`."
                )
        return cls(folder, config)

    @cached_property
    def dataset(self) -> Dataset:
        """The run's data set, prepared first if it has to be.

        Rank 0 prepares it for all, so all ranks of a group read this together.
        """
        return after_first_rank(lambda: open_dataset(self.config, self.folder))

    @property
    def version(self) -> str:
        """A hash of the content of the trained models: other models, another version."""
        return version_of_saved(self.folder, MODELS)

    def policy(self, *, trained: bool = True) -> Policy:
        """The policy as the run left it, or the one that training started from.

        Raises `RunError` when the trained one has changed since.
        """
        if trained:
            check_saved(self.folder, "policy")
            return Policy.from_folder(self.folder / "policy", self.config.policy, self._dtype)
        return Policy.load(self.config.policy, self._dtype)

    def embedder(self, *, trained: bool = True) -> Embedder:
        """The embedder as the run left it, or the one that training started from.

        Raises `RunError` when the trained one has changed since.
        """
        if trained:
            check_saved(self.folder, "embedder")
            return Embedder.from_folder(self.folder / "embedder", self.config.embedder, self._dtype)
        return Embedder.load(self.config.embedder, self._dtype)

    def recommender(self, *, trained: bool = True) -> Recommender:
        """The recommender over the run's catalog, with the trained or the initial embedder."""
        return Recommender.of_catalog(self.embedder(trained=trained), self.dataset.catalog)

    def writer(self, *, trained: bool = True) -> ProfileWriter:
        """The writer of profiles, with the trained or the initial policy."""
        return ProfileWriter(self.policy(trained=trained), self.dataset, self.config.profile)

    @property
    def _dtype(self) -> torch.dtype:
        return COMPUTE_DTYPES[self.config.engine.precision]
