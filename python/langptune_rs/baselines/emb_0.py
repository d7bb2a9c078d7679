"""EMB-0: the untrained embedder reads the history itself, with no profile in between (section 4.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from langptune_rs.baselines.method import Decoding
from langptune_rs.baselines.run_models import RunModels
from langptune_rs.baselines.text_method import TextMethod, history_limits
from langptune_rs.config import RunConfig
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.files import write_text
from langptune_rs.models.embedder import Embedder
from langptune_rs.recommending.recommender import Recommender

_FILE = "embedder.json"


class Emb0(TextMethod):
    """Ranks by the similarity of each item's text to the history's text.

    The embedder truncates a text that exceeds its limit at the end, where the newest items stand.
    """

    name = "EMB-0"
    group = "Text-based"
    uses_seed = False
    Config = EmbedderConfig
    needs = frozenset({"embedder"})

    def __init__(self, dataset: Dataset | None = None, recommender: Recommender | None = None):
        self._dataset, self._recommender = dataset, recommender

    def fit(self, dataset: Dataset, config: EmbedderConfig, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`; the items are embedded, nothing is learned."""
        self._dataset, self._recommender = dataset, Recommender.of_catalog(Embedder.load(config), dataset.catalog)

    @classmethod
    def choices(cls, config: EmbedderConfig) -> Mapping[str, Sequence[object]]:
        """See `Method.choices`: how much of a history is read."""
        return {"max_tokens": history_limits(config)}

    @property
    def recommender(self) -> Recommender:
        """See `TextMethod.recommender`."""
        assert self._recommender is not None, "fit or open comes first"
        return self._recommender

    def texts(self, sessions: Sessions) -> list[str]:
        """The history of each session as text."""
        assert self._dataset is not None, "fit or open comes first"
        return [self._dataset.session_text(sessions, i) for i in range(len(sessions))]

    def save(self, folder: Path) -> None:
        """See `Method.save`; only the embedder's configuration is written."""
        write_text(folder / _FILE, self.recommender.embedder.config.model_dump_json() + "\n")

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`."""
        method = cls()
        config = EmbedderConfig.model_validate_json((folder / _FILE).read_text(encoding="utf-8"))
        method.fit(dataset, config, seed=0)
        return method

    @classmethod
    def accompanies(cls, config: RunConfig) -> bool:
        """Always: see `Method.accompanies`."""
        return True

    @classmethod
    def of_run(cls, models: RunModels, decoding: Decoding = "greedy") -> Self:
        """The method with the embedder that the run started from."""
        return cls(models.run.dataset, models.recommender(trained=False))
