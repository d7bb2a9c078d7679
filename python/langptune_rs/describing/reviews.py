"""What people wrote about items, and who chose them: of train sessions alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from langptune_rs.config.description import DescriptionConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.errors import DataError
from langptune_rs.seeds import generator

WITH_REVIEWS = "Amazon Reviews of 2014, 2018 and 2023, the paper's published sets, and your own files with review_text"
"""The data sets that have reviews, for messages."""


@dataclass(frozen=True, eq=False)
class Reviews:
    """The reviews that the policy reads.

    Attributes:
        items: the items that have any, ascending, int64 (n,).
        texts: those of each, (n,) lists of one or more.
        counts: how many there are to draw from, int64 (n,).
    """

    items: NDArray[np.int64]
    texts: Sequence[Sequence[str]]
    counts: NDArray[np.int64]

    def of(self, items: NDArray[np.integer]) -> list[Sequence[str]]:
        """The reviews of each of `items`, which must have some."""
        return [self.texts[place] for place in np.searchsorted(self.items, items)]


def train_reviews(dataset: Dataset, config: DescriptionConfig, seed: int) -> Reviews:
    """The reviews in the histories of train sessions, some of each item, drawn from `seed` and the item.

    Left out are those of users who have the item as a target in validation or test. Equal texts count once.

    Raises `DataError` where there are none.
    """
    train = dataset.sessions.select("train")
    held_out = held_out_choices(dataset.sessions)
    found: dict[int, dict[str, None]] = {}
    for user, history, reviews in zip(train.user_ids, train.histories.tolist(), train.reviews, strict=True):
        for item, review in zip(history, reviews, strict=True):
            text = _shortened(review or "", config.review_words)
            if text and (user, item) not in held_out:
                found.setdefault(item, {})[text] = None
    if not found:
        raise DataError(
            "The train sessions of this data set have no reviews, and descriptions are written from reviews. Data sets "
            f"with reviews are {WITH_REVIEWS}; MovieLens has none."
        )
    items = sorted(found)
    return Reviews(
        items=np.array(items),
        texts=[_drawn(list(found[item]), config.max_reviews, seed, item) for item in items],
        counts=np.array([len(found[item]) for item in items]),
    )


def choosers(sessions: Sessions, items: NDArray[np.integer]) -> list[NDArray[np.int64]]:
    """The rows of the sessions whose target is each of `items`, ascending."""
    order = np.argsort(sessions.targets, kind="stable")
    targets = sessions.targets[order]
    return [order[np.searchsorted(targets, item) : np.searchsorted(targets, item, side="right")] for item in items]


def held_out_choices(sessions: Sessions) -> set[tuple[str, int]]:
    """Each user with the items that are the user's targets in validation and test."""
    rows = np.flatnonzero(~sessions.splits.mask("train"))
    return {(sessions.user_ids[row], int(sessions.targets[row])) for row in rows.tolist()}


def _shortened(review: str, num_words: int) -> str:
    """A review in one line of at most so many words."""
    words = review.split()
    return " ".join(words[:num_words]) + ("…" if len(words) > num_words else "")


def _drawn(texts: list[str], limit: int, seed: int, item: int) -> list[str]:
    order = generator(seed, "reviews", item).permutation(len(texts))
    return [texts[place] for place in order[:limit]]
