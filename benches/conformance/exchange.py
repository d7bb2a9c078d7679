"""What both sides of a comparison read and write: one file of data, and one file of ranks from each model.

Nothing here imports langptune_rs: the scripts of the other libraries run in environments that do not have it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

UNKNOWN = -1
"""Stands for the target of a held-out session among what models are trained on."""
_SCORES_PER_BLOCK = 1 << 22


@dataclass(frozen=True)
class Exchange:
    """A data set of S sessions, of which V are validation and T are test; users and items are numbers from 0."""

    num_users: int
    num_items: int
    users: NDArray[np.int64]
    """The user of each session, (S,)."""
    sequences: NDArray[np.int64]
    """The items of each session, oldest first, (S, H + 1); the last is `UNKNOWN` for validation and test."""
    validation_users: NDArray[np.int64]
    """(V,)."""
    validation_histories: NDArray[np.int64]
    """(V, H)."""
    validation_targets: NDArray[np.int64]
    """(V,)."""
    test_users: NDArray[np.int64]
    """(T,)."""
    test_histories: NDArray[np.int64]
    """(T, H)."""
    test_targets: NDArray[np.int64]
    """(T,). Only ranks are computed from them."""

    @property
    def pairs(self) -> NDArray[np.int64]:
        """Each user and item that the user chose in any session, once, ascending, (E, 2)."""
        rows = np.stack([np.repeat(self.users, self.sequences.shape[1]), self.sequences.ravel()], axis=1)
        return np.unique(rows[rows[:, 1] != UNKNOWN], axis=0)

    @property
    def known_sequences(self) -> list[NDArray[np.int64]]:
        """The items of each session without the unknown target."""
        return [row[row != UNKNOWN] for row in self.sequences]

    def save(self, path: Path) -> None:
        """Write it to `path`, a .npz file."""
        np.savez_compressed(path, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Exchange:
        """What `save` has written."""
        with np.load(path, allow_pickle=False) as file:
            values = {field.name: file[field.name] for field in fields(cls)}
        return cls(num_users=int(values.pop("num_users")), num_items=int(values.pop("num_items")), **values)


Score = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.floating]]
"""Scores of all items, (B, num_items), for users (B,) and their histories (B, H)."""


def ranks_of(
    scores: NDArray[np.floating], targets: NDArray[np.int64], histories: NDArray[np.int64]
) -> NDArray[np.int64]:
    """1-based rank of each target, (B,), among the items outside its history; of equal scores the smaller index first.

    `scores` is (B, num_items), `targets` (B,) and `histories` (B, H).
    """
    if not np.isfinite(scores).all():
        raise ValueError("a model gave an item the score NaN or infinity, which places it nowhere")
    rows = np.arange(len(targets))
    scores = np.array(scores)
    of_targets = scores[rows, targets][:, None]
    scores[rows[:, None], histories] = -np.inf
    ties_before = (scores == of_targets) & (np.arange(scores.shape[1]) < targets[:, None])
    ranks: NDArray[np.int64] = 1 + (scores > of_targets).sum(axis=1) + ties_before.sum(axis=1)
    return ranks


def rank_all(
    score: Score, users: NDArray[np.int64], histories: NDArray[np.int64], targets: NDArray[np.int64], num_items: int
) -> NDArray[np.int64]:
    """`ranks_of` for any number of sessions, a block of them at a time."""
    size = max(1, _SCORES_PER_BLOCK // num_items)
    blocks = [slice(start, start + size) for start in range(0, len(targets), size)]
    return np.concatenate(
        [ranks_of(score(users[block], histories[block]), targets[block], histories[block]) for block in blocks]
    )


def validation_ndcg(score: Score, data: Exchange) -> float:
    """Mean NDCG@20 of the validation targets, by which both sides choose an epoch."""
    ranks = rank_all(score, data.validation_users, data.validation_histories, data.validation_targets, data.num_items)
    return float(np.where(ranks <= 20, 1 / np.log2(ranks + 1.0), 0.0).mean())


def by_messages(
    messages: NDArray[np.floating], item_vectors: NDArray[np.floating], items: NDArray[np.int64], num_items: int
) -> Score:
    """Scores of sessions as new users of LightGCN's graph, by the rule of this project's graph methods.

    A new user receives the layers 1 to L from the layers 0 to L - 1 of the history's items, and has no layer 0.

    Args:
        messages: the weighted sum of each item's layers 0 to L - 1, divided by the root of its degree, (n, dim).
        item_vectors: what items are ranked by, (n, dim).
        items: our numbers of these n items, (n,).
    """
    of_item = numbers_of(items, num_items)

    def score(users: NDArray[np.int64], histories: NDArray[np.int64]) -> NDArray[np.floating]:
        rows = of_item[histories]
        known = (rows >= 0)[:, :, None]
        vectors = (messages[rows] * known).sum(axis=1) / np.sqrt(np.maximum(known.sum(axis=1), 1))
        return with_others_behind(vectors @ item_vectors.T, items, num_items)

    return score


def numbers_of(items: NDArray[np.int64], num_items: int) -> NDArray[np.int64]:
    """Where each item of the catalog stands in `items`, (num_items,); -1 for one that is not there."""
    numbers = np.full(num_items, -1, dtype=np.int64)
    numbers[items] = np.arange(len(items))
    return numbers


def with_others_behind(scores: NDArray[np.floating], items: NDArray[np.int64], num_items: int) -> NDArray[np.floating]:
    """Scores of the catalog, (B, num_items), from those of `items`, (B, len(items)); other items stand behind them.

    A library does not know an item that nobody chose in training.
    """
    full = np.full((len(scores), num_items), scores.min() - 1.0)
    full[:, items] = scores
    return full


class BestEpoch:
    """Keeps a copy of the weights whose validation score is best, as the methods of this project do."""

    def __init__(self, patience: int):
        """`patience` is how many epochs may bring no better score before `is_over`."""
        self.patience, self.epoch, self.best, self.score = patience, 0, 0, -1.0
        self.last = -1.0
        self.weights: Any = None

    def see(self, score: float, weights: Any) -> None:
        """Take the score after one more epoch, and a copy of its weights if none was better."""
        self.epoch, self.last = self.epoch + 1, score
        if score > self.score:
            self.score, self.best, self.weights = score, self.epoch, deepcopy(weights)

    @property
    def is_over(self) -> bool:
        """Whether training should end."""
        return self.epoch - self.best >= self.patience

    @property
    def about(self) -> dict[str, Any]:
        """What an answer says of the training."""
        return {"best_epoch": self.best, "epochs": self.epoch, "validation": self.score}


class Answer(NamedTuple):
    """What one model says of the test sessions."""

    ranks: NDArray[np.int64]
    """(T,)."""
    about: dict[str, Any]
    """`versions` of libraries, `seconds` of all, and what is worth knowing, such as `best_epoch`."""


def write_answer(path: Path, answer: Answer) -> None:
    """Write an answer to a .npz file."""
    np.savez_compressed(path, ranks=answer.ranks, about=np.array(json.dumps(answer.about)))


def read_answer(path: Path) -> Answer:
    """What `write_answer` has written."""
    with np.load(path, allow_pickle=False) as file:
        return Answer(file["ranks"], json.loads(str(file["about"])))


Fit = Callable[[Exchange, dict[str, Any], int], tuple[Score, dict[str, Any]]]
"""Trains a model on the data with settings and a seed; how it scores, and what is worth knowing of the training."""


def answer_with(models: Mapping[str, Fit], libraries: tuple[str, ...]) -> None:
    """The main function of every library's script: fit the model that the command line names, write its answer.

    Arguments: MODEL --data FILE --settings JSON --seed N --answer FILE.
    """
    from importlib.metadata import version

    parser = argparse.ArgumentParser()
    parser.add_argument("model", choices=models)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--settings", type=json.loads, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--answer", type=Path, required=True)
    arguments = parser.parse_args()
    data = Exchange.load(arguments.data)
    start = time.perf_counter()
    score, about = models[arguments.model](data, arguments.settings, arguments.seed)
    ranks = rank_all(score, data.test_users, data.test_histories, data.test_targets, data.num_items)
    about = {
        **about,
        "seconds": time.perf_counter() - start,
        "versions": {library: version(library) for library in libraries},
    }
    write_answer(arguments.answer, Answer(ranks, about))
