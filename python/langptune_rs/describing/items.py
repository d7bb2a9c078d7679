"""Items as what the policy writes about: prompts of their reviews, rewards by the users who chose them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from langptune_rs.arrays import Ragged
from langptune_rs.config import RunConfig
from langptune_rs.data import Dataset, Sessions
from langptune_rs.data.wording.templates import PromptOptions, PromptStyle
from langptune_rs.describing.reviews import Reviews, choosers, train_reviews
from langptune_rs.describing.users import users_with_texts
from langptune_rs.recommending.described import Users
from langptune_rs.rollout.sampling import Profiles
from langptune_rs.rollout.writer import ProfileWriter
from langptune_rs.seeds import generator
from langptune_rs.training.ranking import Ranking
from langptune_rs.training.subjects import Assignment, Task

INSTRUCTION = "People wrote these reviews of one item."
"""What the policy is told before the item where the recipe says nothing."""


def descriptions_of_items(config: RunConfig, dataset: Dataset) -> Assignment:
    """The assignment of `langptune describe`: the description of each item that has a review in a train session.

    It learns from those that a user chose in a train session, at most `description.max_users` of them. Validation is on
    the targets of validation sessions, each judged by those sessions.

    Raises `DataError` for data without reviews, and what `users_with_texts` raises.
    """
    reviews = train_reviews(dataset, config.description, config.data.seed)
    train = ItemsToDescribe.chosen_in(dataset, reviews, *users_with_texts(config, dataset, "train", None)).with_users(
        config.description.max_users, config.data.seed
    )
    limit = config.evaluation.validation_sessions
    return Assignment(
        train=train,
        validation=ItemsToDescribe.chosen_in(dataset, reviews, *users_with_texts(config, dataset, "validation", limit)),
        others=[ItemsToDescribe(dataset, reviews, reviews.items, [])],
        num_available=len(train.ids),
        name="items with a review and a user who chose them",
    )


DESCRIPTIONS = Task("descriptions", descriptions_of_items)
"""That of `langptune describe`."""


def item_prompt(dataset: Dataset, item: int, reviews: Sequence[str], style: PromptOptions) -> str:
    """The message to the policy about an item: the instruction, the item, its reviews, the closing."""
    catalog = dataset.catalog
    about = catalog.texts[item] if style.history_text == "full" else catalog.lines[item]
    quoted = "\n".join(["Reviews:", *(f"- {review}" for review in reviews)])
    return dataset.template.prompt(
        [about, quoted], PromptStyle(style.instruction or INSTRUCTION, style.closing, style.history_text)
    )


class ItemsToDescribe:
    """Items, each of which gets a description. A description is judged by the users who chose its item."""

    def __init__(self, dataset: Dataset, reviews: Reviews, items: NDArray[np.int64], users: Sequence[Users]):
        """`users` are those who judge each of `items`; none are needed where nothing is scored."""
        self._dataset, self._reviews, self._items, self._users = dataset, reviews, items, users

    @classmethod
    def chosen_in(cls, dataset: Dataset, reviews: Reviews, sessions: Sessions, texts: Sequence[str]) -> ItemsToDescribe:
        """The items with reviews that are the target of some of `sessions`, whose users `texts` stand for."""
        rows_of = choosers(sessions, reviews.items)
        chosen = [place for place, rows in enumerate(rows_of) if len(rows)]
        users = [Users([texts[row] for row in rows_of[p]], sessions.histories[rows_of[p]]) for p in chosen]
        return cls(dataset, reviews, reviews.items[chosen], users)

    def with_users(self, limit: int, seed: int) -> ItemsToDescribe:
        """The same items with at most so many users each, drawn from the seed and the item."""

        def drawn(item: int, users: Users) -> Users:
            rows = np.sort(generator(seed, "choosers", item).permutation(len(users.texts))[:limit])
            return Users([users.texts[row] for row in rows], users.histories[rows])

        users = [drawn(int(item), own) for item, own in zip(self._items, self._users, strict=True)]
        return ItemsToDescribe(self._dataset, self._reviews, self._items, users)

    @property
    def ids(self) -> NDArray[np.int64]:
        """Item indexes."""
        return self._items

    @property
    def users(self) -> Sequence[Users]:
        """The users who judge each item."""
        return self._users

    def prompts(self, rows: NDArray[np.int64], writer: ProfileWriter) -> list[list[int]]:
        """The reviews of the items."""
        items = self._items[rows]
        return [
            writer.policy.encode_prompt(item_prompt(self._dataset, item, reviews, writer.config))
            for item, reviews in zip(items.tolist(), self._reviews.of(items), strict=True)
        ]

    def sources(self, rows: NDArray[np.int64]) -> list[str]:
        """The reviews that the policy reads, one a line."""
        return ["\n".join(reviews) for reviews in self._reviews.of(self._items[rows])]

    def score(
        self, rows: NDArray[np.int64], written: Profiles, ranking: Ranking, *, temperature: float
    ) -> tuple[Ragged, Ragged]:
        """The item for each of its users, its text in the catalog replaced by each description."""
        users = [self._users[row] for row in rows]
        return ranking.score_descriptions(written, self._items[rows], users, temperature=temperature)
