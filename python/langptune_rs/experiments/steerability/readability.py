"""How profiles read: their length, what they copy and repeat, and whether a judge recognises the user by them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl
from numpy.typing import NDArray

from langptune_rs.data import Dataset, Sessions
from langptune_rs.errors import InputError
from langptune_rs.experiments.compare.guards import derangement
from langptune_rs.experiments.steerability.judge import Judge
from langptune_rs.recommending.sentences import parts_of
from langptune_rs.rollout.copying import copied_shares
from langptune_rs.rollout.words import words_of
from langptune_rs.seeds import generator

NUM_CHOICES = 5
"""Items that the judge chooses from: the user's next one, and four others."""
NUM_NEAREST = 20
"""Of how many items, the nearest in popularity, the four others are drawn."""

COLUMNS = pl.Schema(
    {
        "session_id": pl.Int64(),
        "user_id": pl.String(),
        **dict.fromkeys(("words", "distinct", "repeated", "copied", "judged", "judged_other"), pl.Float64()),
    }
)
"""One row for each session.

- words: of the profile; "distinct" is the share of them that differ.
- repeated: the share of its sentences that it has said before.
- copied: the share of its words in runs of three or more from titles of the history.
- judged: whether the judge finds the profile nearest to the user's next item, of five items of about equal popularity.
- judged_other: the same by the profile of another user.
"""


def read_profiles_of(
    texts: Mapping[int, str], sessions: Sessions, dataset: Dataset, judge: Judge, seed: int
) -> pl.DataFrame:
    """The rows of `COLUMNS`.

    Args:
        texts: a profile for each session, by session id.
        sessions: those to read.
        dataset: theirs, with the popularity of its items.
    """
    own = [texts[session] for session in sessions.session_ids.tolist()]
    chosen = choices(sessions, dataset.popularity, seed)
    vectors = judge.profiles(own)
    try:
        others = vectors[derangement(sessions.user_ids.to_list(), seed, "steerability", "judged")]
    except InputError:
        others = None
    distinct, places = np.unique(chosen, return_inverse=True)
    items = judge.items([dataset.catalog.texts[item] for item in distinct.tolist()])[places.reshape(chosen.shape)]
    return pl.DataFrame(
        {
            "session_id": sessions.session_ids,
            "user_id": sessions.user_ids.to_list(),
            "words": [float(len(words_of(text))) for text in own],
            "distinct": [_distinct(text) for text in own],
            "repeated": [repeated_sentences(text) for text in own],
            "copied": copied_shares(own, sessions, dataset.catalog),
            "judged": recognised(vectors, items),
            "judged_other": None if others is None else recognised(others, items),
        },
        schema=COLUMNS,
    )


def choices(sessions: Sessions, popularity: NDArray[np.integer], seed: int) -> NDArray[np.int64]:
    """The items that the judge chooses from for each session, (sessions, up to `NUM_CHOICES`); the first is the target.

    The others are drawn from those whose popularity is nearest to the target's, without those of the history.
    """
    num_others = min(NUM_CHOICES - 1, len(popularity) - sessions.histories.shape[1] - 1)
    found = np.empty((len(sessions), 1 + num_others), dtype=np.int64)
    for row, (session, target, history) in enumerate(
        zip(sessions.session_ids.tolist(), sessions.targets.tolist(), sessions.histories, strict=True)
    ):
        distance = np.abs(popularity - popularity[target]).astype(np.float64)
        distance[[target, *history.tolist()]] = np.inf
        random = generator(seed, "steerability", session, "choices")
        order = np.lexsort((random.permutation(len(popularity)), distance))
        near = order[: min(NUM_NEAREST, int(np.isfinite(distance).sum()))]
        found[row] = [target, *random.permutation(near)[:num_others]]
    return found


def recognised(profiles: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 where the first of a session's items is the nearest to its profile, (n,); a tie is shared among the tied.

    Args:
        profiles: (n, dim).
        items: (n, choices, dim).
    """
    scores = np.einsum("nd,ncd->nc", profiles.astype(np.float64), items.astype(np.float64))
    is_best = scores == scores.max(axis=1, keepdims=True)
    shares: NDArray[np.float64] = is_best[:, 0] / is_best.sum(axis=1)
    return shares


def repeated_sentences(text: str) -> float:
    """The share of a profile's sentences that it has said before, whatever their case; 0 for an empty profile.

    >>> repeated_sentences("Likes cats. Likes dogs. likes cats.")
    0.3333333333333333
    """
    sentences = [tuple(words_of(part.text)) for part in parts_of(text)]
    return 1 - len(set(sentences)) / len(sentences) if sentences else 0.0


def _distinct(text: str) -> float:
    words = words_of(text)
    return len(set(words)) / len(words) if words else 0.0
