"""Epochs of gradient descent until validation stops improving, for the methods that learn from item ids.

The usual defaults leave BERT4Rec under-trained (Petrov and Macdonald, RecSys 2022), so no method here is compared after
a fixed number of epochs: the weights of the best validation score are kept.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Protocol

import torch
from torch import nn

from langptune_rs.distributed.failures import first_line
from langptune_rs.files import write_atomically
from langptune_rs.progress import progress
from langptune_rs.seeds import derive_seed

_KEYS = ("model", "optimizer", "epochs", "best_weights")
"""What a checkpoint holds."""


class Stateful(Protocol):
    """What of an optimizer a checkpoint needs."""

    def state_dict(self) -> dict[str, Any]:
        """Its state."""

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Take a state back."""


class StopsEarly(Protocol):
    """Settings that say how long `train_epochs` trains."""

    @property
    def max_epochs(self) -> int:
        """Epochs at most."""

    @property
    def patience(self) -> int:
        """Epochs without a better score after which it stops."""


@dataclass
class Epochs:
    """What the epochs so far have shown."""

    losses: list[float] = field(default_factory=list)
    """The mean loss of each epoch."""
    scores: dict[int, float] = field(default_factory=dict)
    """The validation score after an epoch, by the number of epochs, for those after which it was measured."""

    @property
    def best(self) -> int:
        """After how many epochs the score was best; the first of equals."""
        return max(self.scores, key=lambda epoch: (self.scores[epoch], -epoch))

    def since_best(self) -> int:
        """How many epochs have gone by without a better score."""
        return len(self.losses) - self.best if self.scores else 0


def unfinished(epochs: Epochs, config: StopsEarly) -> str:
    """A sentence where `max_epochs` ended training before `patience` could; else empty."""
    if len(epochs.losses) < config.max_epochs or epochs.since_best() >= config.patience:
        return ""
    return f"max_epochs = {config.max_epochs} ended training, with the best score on validation after {epochs.best}."


def train_epochs(
    model: nn.Module,
    optimizer: Stateful,
    run_epoch: Callable[[int], float],
    score: Callable[[], float],
    *,
    name: str,
    max_epochs: int,
    patience: int,
    score_every: int,
    seed: int,
    checkpoint: Path | None = None,
) -> Epochs:
    """Train until `patience` epochs in a row bring no better score, `max_epochs` at most; keep the best weights.

    Args:
        run_epoch: trains `model` by `optimizer` for one epoch, whose number from 0 it is given, and returns the mean
            loss. What it draws must depend on its own seed and that number; torch's generator is seeded before it. A
            learning rate that falls is set from the number too.
        score: the validation score of the model in evaluation mode, higher is better. Called after every
            `score_every` epochs and after the last.
        name: what the progress is called.
        checkpoint: a file that holds the state after each scored epoch. If it is there, training goes on from it, to
            the same weights. It must be of the same data, settings and seed. One that cannot be read is reported, and
            training begins again.

    Returns:
        The losses and scores. `model` has the weights after `best` epochs.
    """
    epochs, best_weights = Epochs(), deepcopy(model.state_dict())
    if checkpoint is not None and (state := _kept(checkpoint)) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        epochs, best_weights = Epochs(**state["epochs"]), state["best_weights"]
    with progress(max_epochs, name, done=len(epochs.losses)) as advance:
        while len(epochs.losses) < max_epochs and epochs.since_best() < patience:
            epoch = len(epochs.losses)
            model.train()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive_seed(seed, name, epoch))
                epochs.losses.append(run_epoch(epoch))
            if (epoch + 1) % score_every == 0 or epoch + 1 == max_epochs:
                model.eval()
                with torch.no_grad():
                    epochs.scores[epoch + 1] = score()
                if epochs.best == epoch + 1:
                    best_weights = deepcopy(model.state_dict())
                if checkpoint is not None:
                    write_atomically(checkpoint, partial(torch.save, _state(model, optimizer, epochs, best_weights)))
            advance(note=f"loss {epochs.losses[-1]:.4f}, best score {max(epochs.scores.values(), default=0):.4f}")
    model.load_state_dict(best_weights)
    model.eval()
    return epochs


def _kept(checkpoint: Path) -> dict[str, Any] | None:
    """What a checkpoint holds; None where there is none, or with a warning where it cannot be read."""
    if not checkpoint.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        if not isinstance(state, dict) or state.keys() != set(_KEYS):
            raise ValueError("it holds something else")
    except (RuntimeError, ValueError, LookupError, EOFError, UnpicklingError) as error:
        print(f"warning: {checkpoint} cannot be read ({first_line(error)}); training begins again", file=sys.stderr)
        return None
    return state


def _state(model: nn.Module, optimizer: Stateful, epochs: Epochs, best_weights: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint holds."""
    values = model.state_dict(), optimizer.state_dict(), asdict(epochs), best_weights
    return dict(zip(_KEYS, values, strict=True))
