"""LangPTune and its ablations (section 4.2): a policy writes profiles, an embedder reads them, each trained or not."""

from __future__ import annotations

import shutil
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self

from langptune_rs.baselines.method import Decoding
from langptune_rs.baselines.run_models import RunModels
from langptune_rs.baselines.text_method import TextMethod
from langptune_rs.config import RunConfig, to_toml
from langptune_rs.data import Dataset, Sessions
from langptune_rs.errors import DataError
from langptune_rs.files import write_text
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.rollout.profile_sets import WrittenProfiles
from langptune_rs.runs.folder import CONFIG
from langptune_rs.runs.origin import check_data, read_origin, write_origin
from langptune_rs.runs.trained import MODELS, TrainedRun
from langptune_rs.training.start import started_run, train


class LangPTune(TextMethod):
    """Both models trained.

    What it has learned is in the folder of a run. It writes one greedy profile for each session.
    """

    name = "LangPTune"
    group = "Profile-based"
    Config = RunConfig
    needs = frozenset({"trained policy", "trained embedder"})
    decodings = ("greedy", "sampled")
    writes_with_trained: ClassVar[bool] = True
    """Whether it uses the policy that a run has trained."""
    reads_with_trained = True
    part: ClassVar[str | None] = None
    """For an ablation: the recipe's section of the phase that it keeps."""

    def __init__(
        self,
        run: TrainedRun | Path,
        recommender: Recommender | None = None,
        profiles: WrittenProfiles | None = None,
    ):
        """`run` is a finished run, or the folder for one that `fit` will train.

        `profiles` are those of the sessions that will be ranked; without them the method writes its own. Without
        `recommender` it opens the run's.
        """
        self._run = run if isinstance(run, TrainedRun) else None
        self._folder = run.folder if isinstance(run, TrainedRun) else run
        self._given_recommender, self._profiles = recommender, profiles

    @property
    def run(self) -> TrainedRun:
        """The run whose models these are."""
        assert self._run is not None, "fit or open comes first"
        return self._run

    def fit(self, dataset: Dataset, config: RunConfig, seed: int, checkpoint: Path | None = None) -> None:
        """Train a run in the method's folder, or go on with the one there.

        `dataset` must be the data that `config.data` names. Raises `DataError` when it is not, and what `train` raises.
        """
        config = RunConfig.model_validate(config.model_dump(exclude_unset=True) | {"method": self.name, "seed": seed})
        with started_run(config, self._folder, resume=True):
            train(self._folder)
        self._run = TrainedRun.open(self._folder)
        if self._run.dataset.content != dataset.content:
            raise DataError(
                f"The run in {self._folder} was trained on {config.data.source}, which holds other data than the data "
                "set given. Give the folder of that data set as data.source."
            )

    @cached_property
    def recommender(self) -> Recommender:
        """See `TextMethod.recommender`."""
        return self._given_recommender or self.run.recommender(trained=self.reads_with_trained)

    def texts(self, sessions: Sessions) -> list[str]:
        """The profiles of the sessions."""
        if self._profiles is not None:
            return self._profiles.texts
        writer = self.run.writer(trained=self.writes_with_trained)
        return writer.write(writer.prompts(sessions), greedy=True).texts

    def save(self, folder: Path) -> None:
        """See `Method.save`; the configuration and both models are written, the data set stays where it is.

        What it holds is noted there, and compared when the method is opened.
        """
        for name in MODELS:
            if (self.run.folder / name).is_dir():
                shutil.copytree(self.run.folder / name, folder / name)
        write_text(folder / CONFIG, to_toml(self.run.config))
        if origin := read_origin(self.run.folder):
            write_origin(folder, origin.data)

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """The method of a run's folder, or of a folder that `save` wrote, for its data set.

        Raises `RunError` for another data set than the one it was trained on.
        """
        trained = {"policy": cls.writes_with_trained, "embedder": cls.reads_with_trained}
        run = TrainedRun.open(folder, [model for model in MODELS if trained[model]])
        if origin := read_origin(folder):
            check_data(folder, origin.data, dataset, "the data set given")
        run.dataset = dataset
        return cls(run)

    @classmethod
    def accompanies(cls, config: RunConfig) -> bool:
        """Only with runs that train it: see `Method.accompanies`."""
        return config.method == cls.name

    @classmethod
    def of_run(cls, models: RunModels, decoding: Decoding = "greedy") -> Self:
        """The method with a run's own profiles and recommender, whatever else the run has trained."""
        sets = models.profiles.trained if cls.writes_with_trained else models.profiles.initial
        profiles = sets.greedy if decoding == "greedy" else sets.sampled
        return cls(models.run, models.recommender(trained=cls.reads_with_trained), profiles)


class LangPTuneRlso(LangPTune):
    """The trained policy writes for the initial embedder."""

    name = "LangPTune-RLSO"
    needs = frozenset({"trained policy", "embedder"})
    part = "rlso"
    reads_with_trained = False


class LangPTuneCl(LangPTune):
    """The trained embedder reads what the initial policy writes."""

    name = "LangPTune-CL"
    needs = frozenset({"policy", "trained embedder"})
    part = "contrastive"
    writes_with_trained = False


class LangPTune0(LangPTune):
    """Both models as they were before training."""

    name = "LangPTune-0"
    needs = frozenset({"policy", "embedder"})
    writes_with_trained = reads_with_trained = False

    def fit(self, dataset: Dataset, config: RunConfig, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`; nothing is learned."""
        self._run = TrainedRun(self._folder, config.model_copy(update={"seed": seed}))
        self._run.dataset = dataset

    @classmethod
    def accompanies(cls, config: RunConfig) -> bool:
        """Always: see `Method.accompanies`."""
        return True
