"""RecTools' models on exchanged data. Run in an environment of requirements-rectools.txt, see exchange.answer_with."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pandas as pd
import torch
from conformance.exchange import (
    BestEpoch,
    Exchange,
    Score,
    answer_with,
    numbers_of,
    validation_ndcg,
    with_others_behind,
)
from numpy.typing import NDArray
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel


def sessions(data: Exchange) -> Any:
    """Every session as a user of its own, as RecTools' data set; the places in a session are its days."""
    known = data.known_sequences
    lengths = [len(items) for items in known]
    frame = pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(known)), lengths),
            Columns.Item: np.concatenate(known),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.Timestamp("2000-01-01")
            + pd.to_timedelta(np.concatenate([np.arange(length) for length in lengths]), unit="D"),
        }
    )
    return Dataset.construct(frame)


def score_by(model: Any, lightning: Any, data: Exchange) -> Score:
    """Scores by the dot products of the network's sessions and items, as RecTools' own `recommend` makes them."""
    preparator = model.data_preparator
    items = np.asarray(preparator.get_known_item_ids(), dtype=np.int64)
    inner = np.asarray(preparator.get_known_items_sorted_internal_ids())
    of_item = numbers_of(items, data.num_items)

    def score(users: NDArray[np.int64], histories: NDArray[np.int64]) -> NDArray[np.floating]:
        numbers = of_item[histories]
        rows: list[Any] = [(inner[row[row >= 0]].tolist(), [], {}) for row in numbers]
        network = lightning.torch_model
        was_training = network.training
        network.eval()
        with torch.no_grad():
            vectors = network.item_model.get_all_embeddings()
            batch = model.data_preparator._collate_fn_recommend(rows)
            states = network.encode_sessions(batch, vectors)[:, -1, :]
            scores = (states @ vectors.T).numpy()[:, inner]
        network.train(was_training)
        return with_others_behind(scores, items, data.num_items)

    return score


class Watch(Callback):  # type: ignore[misc]  # no types
    """Scores validation after each epoch, and ends the training when none was better for long."""

    def __init__(self, patience: int) -> None:
        self.epochs = BestEpoch(patience)
        self.measure: Any = None

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        """Called by Lightning."""
        self.epochs.see(self.measure(module), module.torch_model.state_dict())
        trainer.should_stop = self.epochs.is_over


def fit(kind: Any, data: Exchange, settings: dict[str, Any], seed: int, **options: Any) -> tuple[Score, dict[str, Any]]:
    """Train a transformer by the softmax over the whole catalog, and keep the epoch that is best on validation."""
    seed_everything(seed)
    watch = Watch(settings["patience"])

    def trainer() -> Any:
        return Trainer(
            max_epochs=settings["max_epochs"],
            accelerator="cpu",
            devices=1,
            callbacks=[watch],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            logger=False,
        )

    model = kind(
        n_blocks=settings["num_blocks"],
        n_heads=settings["num_heads"],
        n_factors=settings["hidden"],
        dropout_rate=settings["dropout"],
        lr=settings["learning_rate"],
        batch_size=settings["batch_size"],
        loss="softmax",
        get_trainer_func=trainer,
        **options,
    )
    watch.measure = lambda module: validation_ndcg(score_by(model, module, data), data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(sessions(data))
    seen = next(callback for callback in model.fit_trainer.callbacks if isinstance(callback, Watch))
    model.lightning_model.torch_model.load_state_dict(seen.epochs.weights)
    return score_by(model, model.lightning_model, data), seen.epochs.about


def fit_sasrec(data: Exchange, settings: dict[str, Any], seed: int) -> tuple[Score, dict[str, Any]]:
    """SASRec, whose inputs are as long as the histories."""
    return fit(SASRecModel, data, settings, seed, session_max_len=data.sequences.shape[1] - 1)


def fit_bert4rec(data: Exchange, settings: dict[str, Any], seed: int) -> tuple[Score, dict[str, Any]]:
    """BERT4Rec, whose inputs are as long as a history and a mask."""
    length = data.sequences.shape[1]
    return fit(BERT4RecModel, data, settings, seed, session_max_len=length, mask_prob=settings["mask_probability"])


MODELS = {"SASRec": fit_sasrec, "BERT4Rec": fit_bert4rec}

if __name__ == "__main__":
    answer_with(MODELS, ("rectools", "pytorch-lightning", "torch", "numpy"))
