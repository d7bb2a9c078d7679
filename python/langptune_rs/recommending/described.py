"""How well users find items whose text in the catalog is replaced by a description.

The embedding of a description takes the place of the item's own in the matrix of the catalog. Each of the users ranks
the item then, against all other items as they are. No two descriptions are in a catalog together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from langptune_rs import ItemIndex
from langptune_rs.arrays import Ragged
from langptune_rs.errors import InputError
from langptune_rs.recommending.recommender import Recommender


@dataclass(frozen=True, eq=False)
class Users:
    """m users, one or more, who rank an item.

    Attributes:
        texts: a text of each that the embedder reads as a profile.
        histories: item indexes, (m, history length), which are not ranked.
    """

    texts: Sequence[str]
    histories: NDArray[np.integer]


def score_descriptions(
    recommender: Recommender,
    descriptions: Sequence[str],
    items: NDArray[np.integer],
    users: Sequence[Users],
    *,
    temperature: float,
) -> tuple[Ragged, Ragged]:
    """Rank and log-probability of each described item for each of its users.

    `items` (n,) are item indexes and `users` n groups; `descriptions` holds equally many texts about each item, those
    of one item next to each other. Equal texts are embedded once, so that they score the same to the bit.

    Returns (ranks, log_probs): ranks and ln softmax(cosine similarity / temperature), with a row for each description
    and in it a number for each of the item's users.
    """
    of_each = len(descriptions) // max(1, len(items))
    embedded = _embedded_once(descriptions, recommender.embedder.encode_items)
    texts = [text for group in users for text in group.texts]
    starts = np.cumsum([0, *(len(group.texts) for group in users)])
    groups = [np.arange(start, end) for start, end in pairwise(starts) for _ in range(of_each)]
    return score_in_place(
        recommender.index.item_embeddings,
        embedded,
        np.repeat(items, of_each),
        _embedded_once(texts, recommender.encoder.encode_profiles),
        np.concatenate([group.histories for group in users]),
        groups,
        temperature=temperature,
    )


def _embedded_once(texts: Sequence[str], encode: Callable[[Sequence[str]], NDArray[np.float32]]) -> NDArray[np.float32]:
    numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return encode(list(numbers))[[numbers[text] for text in texts]]


def score_in_place(
    item_embeddings: NDArray[np.float32],
    descriptions: NDArray[np.float32],
    items: NDArray[np.integer],
    users: NDArray[np.float32],
    histories: NDArray[np.integer],
    users_of: Sequence[NDArray[np.integer]],
    *,
    temperature: float,
) -> tuple[Ragged, Ragged]:
    """Rank and log-probability of each of D described items for its users, each in a catalog of its own.

    The catalog of description d is `item_embeddings` (n, dim) with `descriptions[d]` (D, dim) in the row `items[d]`.
    `users_of[d]` are rows of `users` (U, dim) and of `histories` (U, history length). An item of exactly the same
    score ranks above a described one.

    Returns (ranks, log_probs), with a row for each description and in it a number for each of its users.

    Raises `InputError` for a description whose item is in the history of one of its users.
    """
    num_items, num_descriptions = len(item_embeddings), len(descriptions)
    # All descriptions stand behind the catalog. A user's own ranking leaves out the others, and the item's own text.
    index = ItemIndex(np.concatenate([item_embeddings, descriptions]))
    of_row = np.repeat(np.arange(num_descriptions), [len(rows) for rows in users_of])
    rows = np.concatenate(users_of)
    if wrong := np.flatnonzero((histories[rows] == items[of_row, None]).any(axis=1)).tolist():
        raise InputError(f"item {items[of_row[wrong[0]]]} is in the history of a user who is to rank it")
    behind = num_items + np.arange(num_descriptions)
    others = np.stack([np.delete(behind, d) for d in range(num_descriptions)])
    excluded = np.concatenate([histories[rows], items[of_row, None], others[of_row]], axis=1).astype(np.int64)
    ranks, log_probs = index.score_targets(users[rows], behind[of_row], excluded, temperature=temperature)
    offsets = np.cumsum([0, *(len(own) for own in users_of)])
    assert isinstance(ranks, np.ndarray)  # one target for each user
    assert isinstance(log_probs, np.ndarray)
    return Ragged(offsets, ranks), Ragged(offsets, log_probs)
