"""EMB-CL: the embedder of EMB-0 after contrastive training on histories (section 4.2; appendix C).

It is a method of its own and no run of `langptune train`: a run loads a policy, writes profiles for its validation and
its evaluation, and describes them on its page, of which nothing is left here. What a run trains the embedder with is
used as it is: the contrastive step, its engine, the order of sessions and the decay of the learning rate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import PositiveInt

from langptune_rs.baselines.epochs import train_epochs
from langptune_rs.baselines.text_method import TextMethod, history_limits
from langptune_rs.config.contrastive import ContrastiveStepConfig
from langptune_rs.config.embedder import EmbedderConfig
from langptune_rs.config.engine import EngineConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.distributed.start import start_distributed
from langptune_rs.errors import DataError, TrainingError
from langptune_rs.evaluation.metrics import from_ranks
from langptune_rs.files import write_text
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.precision import COMPUTE_DTYPES, Precision, trained_in
from langptune_rs.recommending.recommender import Recommender
from langptune_rs.seeds import derive_seed
from langptune_rs.training.contrastive_step import contrastive_batch, contrastive_step, log_target_shares
from langptune_rs.training.engines import OptimizerState, make_engine
from langptune_rs.training.schedules import batch_rows, linear_decay

_CONFIG, _EMBEDDER = "emb_cl.json", "embedder"


class EmbClConfig(ContrastiveStepConfig):
    """How EMB-CL is trained. The paper has 14,698 train sessions, over which its 4,000 steps are 70 epochs."""

    embedder: EmbedderConfig = EmbedderConfig()
    """The embedder that training starts from."""
    text: Literal["full", "titles"] = "full"
    """What is read of a history, in training as in ranking: all of its items' texts, ratings and reviews, as EMB-0
    does, or their titles in one line, which takes a few times less work."""
    iterations: PositiveInt = 5
    """K (appendix C). The weights are those after the iteration with the best NDCG@20 on validation."""
    steps: PositiveInt = 800
    """J (appendix C): optimizer steps in each iteration. The learning rate falls to 0 over all K x J."""
    precision: Precision = "auto"
    """What training computes in; "auto" is bf16, with float32 masters of the weights, where the hardware is faster in
    it, whatever the recipe's `engine.precision` is. The trained embedder ranks in float32."""


class EmbCl(TextMethod):
    """Ranks by the similarity of each item's text to the history's text, by an embedder that was trained to.

    Train sessions alone are pairs of a history and its target, since a pair needs a target. After each iteration there
    is a checkpoint.
    """

    name = "EMB-CL"
    group = "Text-based"
    Config = EmbClConfig
    grid: ClassVar[Mapping[str, Sequence[float]]] = {"learning_rate": (1e-5, 5e-5)}
    stops_on_validation = True
    needs = frozenset({"embedder"})

    def __init__(
        self,
        dataset: Dataset | None = None,
        config: EmbClConfig | None = None,
        recommender: Recommender | None = None,
    ):
        self._dataset, self._config, self._recommender = dataset, config, recommender

    def fit(self, dataset: Dataset, config: EmbClConfig, seed: int, checkpoint: Path | None = None) -> None:
        """See `Method.fit`; takes K x J steps of Eq. 7.

        Raises `DataError` for fewer train sessions than a batch holds or no validation sessions, and `TrainingError`
        for a loss that is not finite.
        """
        train, validation = (dataset.sessions.select(split) for split in ("train", "validation"))
        if config.batch_size > len(train):
            raise DataError(
                f"{self.name}.batch_size = {config.batch_size}, but there are only {len(train)} train sessions, of "
                f"which a batch holds each once. Set it to at most {len(train)}, or prepare more data."
            )
        self._dataset, self._config = dataset, config
        start_distributed()
        precision = trained_in(config.precision)
        embedder = Embedder.load(config.embedder, COMPUTE_DTYPES[precision])
        engine = make_engine(
            embedder.model, config.learning_rate, config.weight_decay, EngineConfig(precision=precision)
        )
        log_shares = log_target_shares(dataset) if config.popularity_correction else None
        num_steps, order = config.iterations * config.steps, derive_seed(seed, self.name)

        def run_step(step: int) -> float:
            embedder.model.eval()  # no dropout: docs/decisions/dropout.md
            rows = batch_rows(len(train), config.batch_size, step, order)
            batch = contrastive_batch(dataset, train, rows, self.texts(train.take(rows)), log_shares)
            rate = linear_decay(config.learning_rate, step, num_steps)
            loss = contrastive_step(engine, embedder, batch, config, rate)["contrastive/loss"]
            if not math.isfinite(loss):
                raise TrainingError(
                    f"The loss of {self.name} is {loss} at step {step + 1} of {num_steps}. Lower "
                    f"{self.name}.learning_rate = {config.learning_rate:g}."
                )
            return loss

        def score() -> float:
            self._recommender = Recommender.of_catalog(embedder, dataset.catalog)
            return float(from_ranks(self.score_targets(validation).ranks[:, 0], "ndcg@20").mean())

        train_epochs(
            embedder.model,
            OptimizerState(engine),
            run_step,
            score,
            name=self.name,
            max_epochs=num_steps,
            patience=num_steps,
            score_every=config.steps,
            seed=seed,
            checkpoint=checkpoint,
        )
        embedder.model.float()
        self._recommender = Recommender.of_catalog(embedder, dataset.catalog)

    @classmethod
    def choices(cls, config: EmbClConfig) -> Mapping[str, Sequence[object]]:
        """See `Method.choices`: the rates of the grid and that of `config`, and what of a history is read.

        Its texts are read as far as the encoder can. A recipe's limit is for profiles, which are short.
        """
        return {
            "learning_rate": sorted({*cls.grid["learning_rate"], config.learning_rate}),
            "text": ("full", "titles"),
            "embedder.max_tokens": history_limits(config.embedder)[-1:],
        }

    @property
    def recommender(self) -> Recommender:
        """See `TextMethod.recommender`."""
        assert self._recommender is not None, "fit or open comes first"
        return self._recommender

    def texts(self, sessions: Sessions) -> list[str]:
        """The history of each session as text."""
        assert self._dataset is not None, "fit or open comes first"
        assert self._config is not None, "fit or open comes first"
        read = self._dataset.session_text if self._config.text == "full" else self._dataset.history_titles
        return [read(sessions, i) for i in range(len(sessions))]

    def save(self, folder: Path) -> None:
        """See `Method.save`; the trained embedder is written, which `SentenceTransformer` opens too."""
        assert self._config is not None, "fit or open comes first"
        self.recommender.embedder.save(folder / _EMBEDDER)
        write_text(folder / _CONFIG, self._config.model_dump_json() + "\n")

    @classmethod
    def open(cls, folder: Path, dataset: Dataset) -> Self:
        """See `Method.open`."""
        config = EmbClConfig.model_validate_json((folder / _CONFIG).read_text(encoding="utf-8"))
        embedder = Embedder.from_folder(folder / _EMBEDDER, config.embedder)
        return cls(dataset, config, Recommender.of_catalog(embedder, dataset.catalog))
