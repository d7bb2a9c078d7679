"""What an edit of a profile does to the ranking: the list before, the list after, and every item's move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langptune_rs.errors import InputError
from langptune_rs.evaluation.index import ItemIndex
from langptune_rs.recommending.edits import Edit, Profile
from langptune_rs.recommending.vectors import ProfileEncoder, profile_vectors, unread_of


@dataclass(frozen=True)
class Ranking:
    """All items but the excluded ones, best first.

    Attributes:
        items: int64 (n,), their indexes.
        scores: float32 (n,), their cosine similarities.
    """

    items: NDArray[np.int64]
    scores: NDArray[np.float32]

    def ranks(self, num_items: int) -> NDArray[np.int64]:
        """The 1-based rank of every item of the catalog, (num_items,), and 0 for those that are excluded."""
        ranks = np.zeros(num_items, dtype=np.int64)
        ranks[self.items] = np.arange(1, len(self.items) + 1)
        return ranks


@dataclass(frozen=True)
class Move:
    """An item's place before and after an edit. `rise` is how many places it went up, below 0 for down."""

    item: int
    rank_before: int
    rank_after: int
    score_before: float
    score_after: float

    @property
    def rise(self) -> int:
        """Places that the item went up."""
        return self.rank_before - self.rank_after


@dataclass(frozen=True)
class Steering:
    """A profile before and after an edit, and the ranking by each.

    Attributes:
        profile_before, profile_after: the profiles.
        before, after: the rankings of all items that are not excluded.
        unread: what the embedder does not read of the new text and of requests, empty where it reads all.
    """

    profile_before: Profile
    profile_after: Profile
    before: Ranking
    after: Ranking
    unread: str

    def moves(self, k: int | None = None) -> list[Move]:
        """The moves of the first `k` items of the new ranking, best first, then those that left the first `k`.

        Without `k` of every item.
        """
        k = len(self.after.items) if k is None else k
        first = self.after.items[:k].tolist()
        gone = [item for item in self.before.items[:k].tolist() if item not in set(first)]
        num_items = int(max(self.before.items.max(initial=-1), self.after.items.max(initial=-1))) + 1
        ranks_before, ranks_after = self.before.ranks(num_items), self.after.ranks(num_items)
        return [
            Move(
                item,
                int(ranks_before[item]),
                int(ranks_after[item]),
                float(self.before.scores[ranks_before[item] - 1]),
                float(self.after.scores[ranks_after[item] - 1]),
            )
            for item in [*first, *gone]
        ]


def rank_all(index: ItemIndex, vectors: NDArray[np.float32], exclude: Sequence[int] = ()) -> list[Ranking]:
    """The whole ranking by each vector, (n, dim)."""
    left = len(index) - len(set(exclude))
    excluded = np.tile(np.array(list(exclude), dtype=np.int64), (len(vectors), 1))
    scores, items = index.search(vectors, left, exclude=excluded)
    return [Ranking(*row) for row in zip(items, scores, strict=True)]


def steer(
    embedder: ProfileEncoder, index: ItemIndex, profile: Profile, edits: Sequence[Edit], exclude: Sequence[int] = ()
) -> Steering:
    """What edits, done one after the other, do to the ranking of all items that are not excluded.

    Both profiles are embedded in one batch. Steering back to the text before gives the ranking before: a ranking
    depends on the profile alone.

    Raises `InputError` for edits that change nothing, and as the edits do.
    """
    edited = profile
    for edit in edits:
        edited = edit(edited)
    if edited == profile:
        raise InputError("the edit changes nothing of the profile: write another text, weight or request")
    before, after = rank_all(index, profile_vectors(embedder, [profile, edited]), exclude)
    return Steering(profile, edited, before, after, unread_of(embedder, edited))
