"""A data set whose right descriptions are known, and an embedder that reads the words which make them right.

Items and users are of a kind. What is known of an item names a wrong one; its reviews name the right one. A user ranks
an item by the kinds that its text names.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from langptune_rs.data.store.catalog import Catalog
from langptune_rs.data.store.dataset import Dataset
from langptune_rs.data.store.sessions import Sessions
from langptune_rs.data.wording.templates import make_template
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.seeds import generator

KINDS = ("dragons", "trains", "kitchens", "cats")
NUM_ITEMS, NUM_USERS, HISTORY = 48, 60, 2
UNREVIEWED = 3
"""An item of which nobody has written anything."""


def kind_of(item: int) -> str:
    """The kind that users look for."""
    return KINDS[item % len(KINDS)]


def wrong_kind(item: int) -> str:
    """The kind that is written about the item."""
    return KINDS[(item + 1) % len(KINDS)]


def review_of(item: int, user: str) -> str | None:
    """What a user wrote of an item."""
    return None if item == UNREVIEWED else f"Full of {kind_of(item)}, says {user}."


def planted(num_users: int = NUM_USERS) -> Dataset:
    """Each user has four sessions of items of one kind, two of them held out."""
    rows = []
    for user in range(num_users):
        items = generator("planted", user).permutation(np.arange(user % len(KINDS), NUM_ITEMS, len(KINDS)))
        for number, split in enumerate(("train", "train", "validation", "test")):
            rows.append((f"u{user}", split, items[number * (HISTORY + 1) :][: HISTORY + 1]))
    items = np.array([window for *_, window in rows], dtype=np.int32)
    sessions = Sessions(
        session_ids=np.arange(len(rows)),
        user_ids=[user for user, *_ in rows],
        histories=items[:, :-1],
        ratings=np.full((len(rows), HISTORY), np.nan, dtype=np.float32),
        reviews=[[review_of(int(item), user) for item in window[:-1]] for user, _, window in rows],
        targets=items[:, -1],
        splits=[split for _, split, _ in rows],
    )
    names = [f"Story {item}" for item in range(NUM_ITEMS)]
    texts = [f"Title: Story {item}\nDescription: about {wrong_kind(item)}" for item in range(NUM_ITEMS)]
    catalog = Catalog(
        [f"i{item}" for item in range(NUM_ITEMS)], names, texts, [f"- Story {item}" for item in range(NUM_ITEMS)]
    )
    template = make_template("generic", has_ratings=False, has_reviews=True)
    return Dataset(catalog, sessions, template, {"config": {}})


class Reader:
    """Reads the kinds that a text of an item names; of a user's titles, the kind of the items that they are of.

    A text has as many tokens as words, and no more than `max_tokens` are read.
    """

    dim = len(KINDS) + 3
    item_prompt = ""

    def __init__(self, max_tokens: int = 50):
        self.model = SimpleNamespace(max_seq_length=max_tokens)

    def tokens(self, texts, prompt=""):
        return [text.split()[: self.model.max_seq_length] for text in texts]

    def encode_items(self, texts):
        read = [" ".join(tokens) for tokens in self.tokens(texts)]
        return self._unit([[1.0 * (kind in text) for kind in KINDS] + self._noise(text) for text in read])

    def encode_profiles(self, texts):
        rows = []
        for text in texts:
            kinds = [kind_of(int(title.split()[1])) for title in text.split("; ")]
            rows.append([1.0 * kinds.count(kind) for kind in KINDS] + self._noise(text))
        return self._unit(rows)

    def _noise(self, text):
        return generator("text", text).normal(0, 0.1, self.dim - len(KINDS)).tolist()

    @staticmethod
    def _unit(rows):
        vectors = np.array(rows, dtype=np.float64)
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def written(texts) -> Profiles:
    """Texts as a policy's, each of which ended."""
    return Profiles([[0] * len(text.split()) for text in texts], list(texts), np.ones(len(texts), dtype=bool))
