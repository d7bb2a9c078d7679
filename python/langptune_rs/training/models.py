"""Both models of a run with the engines that train them."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError

from langptune_rs.config import RunConfig
from langptune_rs.distributed.collectives import barrier, on_first_rank, rank
from langptune_rs.files import flush
from langptune_rs.models.embedder import Embedder
from langptune_rs.models.policy import Policy
from langptune_rs.models.precision import COMPUTE_DTYPES
from langptune_rs.runs.folder import CHECKPOINTS
from langptune_rs.runs.saved_models import note_saved
from langptune_rs.runs.saving import not_written
from langptune_rs.training.checkpoints import last_checkpoint
from langptune_rs.training.engines import Engine, gathered, make_engine
from langptune_rs.training.scorer import ProfileScorer

ModelName = Literal["policy", "embedder"]


class Models:
    """The policy and the embedder.

    Attributes:
        scorer: the module that the policy's engine trains.
        engines: one for each model that trains, by its name, "embedder" or "policy".
    """

    def __init__(self, config: RunConfig):
        """Load both models of a recipe and make their engines. Raises `ModelError` when one cannot be loaded."""
        dtype = COMPUTE_DTYPES[config.engine.precision]
        torch.set_float32_matmul_precision("highest")  # TF32 does not see a step of 1e-6: docs/log-ratios.md
        torch.manual_seed(config.seed)
        trained_dtype = COMPUTE_DTYPES[config.rlso.precision] if config.trains_policy else None
        self.policy = Policy.load(config.policy, dtype, trained_dtype)
        self.embedder = Embedder.load(config.embedder, dtype)
        self.scorer = ProfileScorer(
            self.policy, config.profile.temperature, checkpointing=config.rlso.gradient_checkpointing
        )
        self.engines: dict[str, Engine] = {}
        if config.trains_embedder:
            contrastive = config.contrastive
            self.engines["embedder"] = make_engine(
                self.embedder.model, contrastive.learning_rate, contrastive.weight_decay, config.engine
            )
        if config.trains_policy:
            self.engines["policy"] = make_engine(
                self.scorer, config.rlso.learning_rate, config.rlso.weight_decay, config.engine, config.rlso.precision
            )

    def whole(self, name: ModelName) -> AbstractContextManager[None]:
        """A block in which every rank holds the whole weights of a model, whether it trains or not."""
        return gathered(self.engines[name]) if name in self.engines else nullcontext()

    def save(self, run: Path) -> None:
        """Write both models into `run` in their libraries' own formats; each gets its name once it is complete."""
        models: tuple[tuple[ModelName, Policy | Embedder], ...] = (
            ("policy", self.policy),
            ("embedder", self.embedder),
        )
        for name, model in models:
            with self.whole(name):
                on_first_rank(partial(save_model, model, run / name))
        if rank() == 0:
            note_saved(run, [name for name, _ in models])
        barrier()


def save_model(model: Policy | Embedder, final: Path) -> None:
    """Write a trained model into the folder `final`, which appears only once it is complete.

    Raises `RunError` when it cannot be written; what the run saved before stays.
    """
    temporary = final.with_name(f".{final.name}.tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        model.save(temporary)
        flush(temporary)
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise not_written(final, error, last_checkpoint(final.with_name(CHECKPOINTS))) from error
