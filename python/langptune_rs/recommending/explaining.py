"""Why an item stands where it does: what each part of the profile adds to its score, and what is near to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from langptune_rs.errors import InputError
from langptune_rs.evaluation.index import ItemIndex
from langptune_rs.recommending.edits import Profile
from langptune_rs.recommending.sentences import By, Part, parts_of, without
from langptune_rs.recommending.vectors import ProfileEncoder, profile_vectors, unread_of


@dataclass(frozen=True)
class PartEffect:
    """What a part of a profile does to an item.

    Attributes:
        part: the sentence or word.
        effect: the item's score less its score by the profile without the part; above 0, the part lifts the item.
        rank_without: the item's rank by the profile without the part.
        similarity: cosine of the item and the part alone.
    """

    part: Part
    effect: float
    rank_without: int
    similarity: float


@dataclass(frozen=True)
class Explanation:
    """Why an item stands where it does.

    Attributes:
        item: the item's index.
        score, rank: by the whole profile, among all items but the history.
        num_ranked: how many items that are.
        parts: in the order of the profile.
        history: (item, cosine with the explained item) of the history's items, the nearest first.
        unread: what the embedder does not read of the text and of requests, empty where it reads all.
    """

    item: int
    score: float
    rank: int
    num_ranked: int
    parts: tuple[PartEffect, ...]
    history: tuple[tuple[int, float], ...]
    unread: str


def explain(
    embedder: ProfileEncoder,
    index: ItemIndex,
    profile: Profile,
    item: int,
    history: Sequence[int] = (),
    by: By = "sentence",
) -> Explanation:
    """What every sentence or word of a profile does to one item, by leaving it out and ranking again, exactly.

    All texts are embedded in one batch. Leaving out all that a profile says leaves the embedding of an empty text.

    Raises `InputError` for an item of the history, which is not ranked.
    """
    if item in set(history):
        raise InputError(f"item {item} is in the history, which is not ranked: name an item outside of it")
    parts = parts_of(profile.text, by)
    left = [replace(profile, text=without(profile.text, [part])) for part in parts]
    alone = [Profile(part.text) for part in parts]
    vectors = profile_vectors(embedder, [profile, *left, *alone])
    ranked, apart = vectors[: 1 + len(parts)], vectors[1 + len(parts) :]
    targets = np.full(len(ranked), item)
    excluded = np.tile(np.array(list(history), dtype=np.int64), (len(ranked), 1))
    scores = np.asarray(index.score(ranked, targets))
    ranks = np.asarray(index.rank(ranked, targets, exclude=excluded))
    embeddings = index.item_embeddings
    near = [(int(other), float(embeddings[other] @ embeddings[item])) for other in dict.fromkeys(history)]
    return Explanation(
        item=item,
        score=float(scores[0]),
        rank=int(ranks[0]),
        num_ranked=len(index) - len(set(history)),
        parts=tuple(
            PartEffect(
                part, float(scores[0] - scores[place]), int(ranks[place]), float(apart[place - 1] @ embeddings[item])
            )
            for place, part in enumerate(parts, start=1)
        ),
        history=tuple(sorted(near, key=lambda pair: -pair[1])),
        unread=unread_of(embedder, profile),
    )
