"""The same sessions ranked by the same vectors of users, with the items' texts written in several ways."""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from langptune_rs import ItemIndex
from langptune_rs.data import Sessions
from langptune_rs.evaluation.summary import LIKELIHOOD_TEMPERATURE, score_sessions
from langptune_rs.experiments.kept import Kept
from langptune_rs.models.embedder import Embedder
from langptune_rs.progress import progress

METADATA, REVIEWS = "metadata", "reviews"
INITIAL, TRAINED = "initial policy", "trained policy"
WRITTEN = (REVIEWS, INITIAL, TRAINED)
"""What may stand for an item in place of its metadata."""


def beside_metadata(name: str) -> str:
    """The name of the catalog whose items have their metadata, and behind it what the catalog `name` has."""
    return f"{METADATA} + {name}"


CATALOGS = (METADATA, *WRITTEN, *map(beside_metadata, WRITTEN))
"""The ways in which items are written, in the order of the tables."""
PAIRS = (
    (TRAINED, INITIAL),
    (TRAINED, REVIEWS),
    (TRAINED, METADATA),
    (INITIAL, METADATA),
    (REVIEWS, METADATA),
    (beside_metadata(TRAINED), beside_metadata(INITIAL)),
    (beside_metadata(TRAINED), beside_metadata(REVIEWS)),
    (beside_metadata(TRAINED), METADATA),
    (beside_metadata(INITIAL), METADATA),
    (beside_metadata(REVIEWS), METADATA),
)
"""Which catalogs are compared."""


@dataclass(frozen=True, eq=False)
class Judged:
    """How the sessions rank in one catalog.

    Attributes:
        ranks: of each session's target, int64 (n_sessions,).
        scores: {metric: (n_sessions,)}.
        cut_share: the share of items whose text is too long for the embedder, which does not read its end.
    """

    ranks: NDArray[np.int64]
    scores: Mapping[str, NDArray[np.float64]]
    cut_share: float


class Judge:
    """An embedder with the sessions that are ranked."""

    def __init__(
        self,
        embedder: Embedder,
        decides: Mapping[str, Any],
        sessions: Sessions,
        users: Sequence[str],
        kept: Kept,
        k: int,
    ):
        """`decides` are the values that decide what the embedder returns. `users` is a text for each session's user."""
        self._embedder, self._decides, self._sessions, self._kept, self._k = embedder, decides, sessions, kept, k
        self._users = embedder.encode_profiles(users)

    def judge(self, name: str, texts: Sequence[str]) -> Judged:
        """The sessions in a catalog of these texts, one for each item."""
        digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
        items = self._kept.array("catalog", {**self._decides, "texts": digest}, lambda: self._encode(name, texts))
        ranks, log_probs = ItemIndex(items).score_targets(
            self._users,
            self._sessions.targets,
            self._sessions.histories.astype(np.int64),
            temperature=LIKELIHOOD_TEMPERATURE,
        )
        assert isinstance(ranks, np.ndarray)  # one target for each session
        assert isinstance(log_probs, np.ndarray)
        scores = score_sessions(ranks[:, None], log_probs[:, None], self._k).per_user
        return Judged(ranks, scores, 1 - float(np.mean(self._reads_whole(texts))))

    def _encode(self, name: str, texts: Sequence[str]) -> NDArray[np.float32]:
        parts = [np.empty((0, self._embedder.dim), dtype=np.float32)]
        with progress(len(texts), f"{name}: items") as advance:
            for start in range(0, len(texts), _TEXTS_PER_STEP):
                parts.append(self._embedder.encode_items(texts[start : start + _TEXTS_PER_STEP]))
                advance(len(parts[-1]))
        return np.concatenate(parts)

    def joined(self, first: str, second: str) -> str:
        """Both texts, a line each, with as many of the first one's words as leave the second one within what is read.

        The embedder cuts what is too long at its end, which would be the second text.
        """
        words = first.split(" ")
        whole = f"{first}\n{second}"
        if self._reads_whole([whole])[0]:
            return whole

        def is_too_long(num_words: int) -> bool:
            return not self._reads_whole([_beginning(words, num_words, second)])[0]

        return _beginning(words, max(0, bisect_left(range(len(words)), True, key=is_too_long) - 1), second)

    def _reads_whole(self, texts: Sequence[str]) -> list[bool]:
        """Whether the embedder surely reads the text of an item to its end."""
        limit = self._embedder.model.max_seq_length
        assert limit is not None, "it is set when the embedder is made"
        return [len(tokens) < limit for tokens in self._embedder.tokens(texts, self._embedder.item_prompt)]


_TEXTS_PER_STEP = 256


def _beginning(words: Sequence[str], num_words: int, second: str) -> str:
    first = " ".join(words[:num_words])
    return f"{first}\n{second}" if first else second


def catalog_texts(metadata: Sequence[str], items: NDArray[np.integer], texts: Sequence[str]) -> list[str]:
    """The text of every item: that of `texts` for each of `items`, and the metadata of the others."""
    written = dict(zip(items.tolist(), texts, strict=True))
    return [written.get(item, own) for item, own in enumerate(metadata)]
