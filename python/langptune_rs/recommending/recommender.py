"""The recommender: an embedder, and the index of the items that it embedded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from langptune_rs import ItemIndex
from langptune_rs.arrays import Ragged, rows_of
from langptune_rs.data import Catalog
from langptune_rs.errors import InputError
from langptune_rs.models.embedder import Embedder
from langptune_rs.recommending.edits import Edit, Profile, check_text, is_blank
from langptune_rs.recommending.explaining import Explanation, explain
from langptune_rs.recommending.sentences import By
from langptune_rs.recommending.steering import Steering, steer
from langptune_rs.recommending.vectors import ProfileEncoder, profile_vectors


class Recommender:
    """Ranks the items of a catalog by their similarity to a profile.

    It does not embed the items again when the embedder is trained: make a new recommender then.
    """

    def __init__(self, embedder: Embedder, item_embeddings: np.ndarray, encoder: ProfileEncoder | None = None):
        """`item_embeddings` is float32 (n_items, dim), the catalog's items embedded by `embedder`.

        `encoder` embeds the profiles to recommend for in its place, as one that many threads share.
        """
        self.embedder = embedder
        self.encoder: ProfileEncoder = embedder if encoder is None else encoder
        self.index = ItemIndex(item_embeddings)

    @classmethod
    def of_catalog(cls, embedder: Embedder, catalog: Catalog) -> Recommender:
        """The recommender of a catalog, whose items this embeds."""
        return cls(embedder, embedder.encode_items(catalog.texts))

    @property
    def num_items(self) -> int:
        """Items of the catalog."""
        return len(self.index)

    def ranks(
        self, texts: Sequence[str], targets: NDArray[np.integer], histories: NDArray[np.integer]
    ) -> NDArray[np.int64]:
        """1-based rank of each session's target among all items outside its history, (sessions, texts per session).

        `texts` holds equally many texts for each session, those of one session next to each other. `targets` is
        (sessions,) and `histories` (sessions, history length), both item indexes.
        """
        num_texts = len(texts) // max(1, len(targets))
        targets, histories = (np.repeat(x, num_texts, axis=0) for x in (targets, histories))
        ranks = self.index.rank(self.encoder.encode_profiles(texts), targets, exclude=histories)
        assert isinstance(ranks, np.ndarray)  # one target for each text
        return ranks.reshape(-1, max(1, num_texts))

    def score_targets(
        self,
        texts: Sequence[str],
        targets: NDArray[np.integer] | Sequence[NDArray[np.integer]],
        histories: NDArray[np.integer],
        *,
        temperature: float,
    ) -> tuple[Ragged, Ragged]:
        """Rank and log-probability of each session's targets by each of its texts, among all items outside its history.

        `texts` holds equally many texts for each session, those of one session next to each other. `targets` is
        (sessions,), or an array of one or more items for each session, and `histories` (sessions, history length).
        Equal texts are embedded once, so that they score the same to the bit.

        Returns (ranks, log_probs): ranks and ln softmax(cosine similarity / temperature), with a row for each text.
        """
        rows = rows_of(targets, "targets")
        num_texts = len(texts) // max(1, len(rows))
        targets_of_texts = [row for row in rows for _ in range(num_texts)]
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        embeddings = self.encoder.encode_profiles(list(numbers))[[numbers[text] for text in texts]]
        ranks, log_probs = self.index.score_targets(
            embeddings, targets_of_texts, np.repeat(histories, num_texts, axis=0), temperature=temperature
        )
        assert isinstance(ranks, Ragged)  # a row for each text
        assert isinstance(log_probs, Ragged)
        return ranks, log_probs

    def recommend(
        self, profile: str | Profile, k: int = 20, exclude: Sequence[int] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """The k items nearest to a profile, best first: indexes int64 (k,) and cosine similarities float32 (k,).

        `exclude` holds item indexes that are left out, such as the user's history.
        Raises `InputError` for an empty profile, an index out of range, or more items than the catalog has left.
        """
        check_request(profile, k, exclude, self.num_items)
        user = profile_vectors(self.encoder, [Profile.of(profile)])
        scores, items = self.index.search(user, k, exclude=np.array([list(exclude)], dtype=np.int64))
        return items[0], scores[0]

    def explain(
        self, profile: str | Profile, item: int, history: Sequence[int] = (), by: By = "sentence"
    ) -> Explanation:
        """What every sentence (or word) of a profile does to an item's score and rank, see `Explanation`.

        Raises `InputError` for an empty profile, an index out of range, or an item of the history.
        """
        check_items([item], self.num_items, "item")
        check_request(profile, 1, history, self.num_items)
        return explain(self.encoder, self.index, Profile.of(profile), item, history, by)

    def steer(self, profile: str | Profile, *edits: Edit, exclude: Sequence[int] = ()) -> Steering:
        """The ranking before and after edits of a profile, see `Steering`.

        Raises `InputError` for an empty profile, an edit that cannot be made or changes nothing, or an index out of
        range.
        """
        check_request(profile, 1, exclude, self.num_items)
        return steer(self.encoder, self.index, Profile.of(profile), edits, exclude)


def check_request(profile: str | Profile, k: int, exclude: Sequence[int], num_items: int) -> None:
    """Raise the errors of `Recommender.recommend`, before any model is loaded."""
    text = Profile.of(profile).text
    if is_blank(text):
        raise InputError(
            "the profile is empty: write at least a word about what the user likes (a policy that thinks and writes "
            "none needs a higher profile.max_tokens, or policy.template_arguments that tell it not to think)"
        )
    check_text(text)
    check_k(k, exclude, num_items)


def check_k(k: int, exclude: Sequence[int], num_items: int) -> None:
    """Raise `InputError` where there are not k items beside those of `exclude`, or one of these is out of range."""
    check_items(exclude, num_items, "exclude")
    num_left = num_items - len(set(exclude))
    if num_left < 1:
        raise InputError(f"exclude holds all {num_items} items of the catalog, so none is left: leave some out of it")
    if not 1 <= k <= num_left:
        raise InputError(f"k = {k}: the catalog has {num_left} items to recommend; pass a number from 1 to that")


def check_items(items: Sequence[int], num_items: int, name: str) -> None:
    """Raise `InputError` for an item index that is out of range; `name` is the argument that holds it."""
    for item in items:
        if not 0 <= item < num_items:
            raise InputError(f"{name} holds item {item}: the catalog's indexes go from 0 to {num_items - 1}")
