"""A catalog and the sessions over it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from langptune_rs.config.data import STARS, RatingScale, parse_scale
from langptune_rs.data.store.catalog import Catalog
from langptune_rs.data.store.content import content_in, content_of, wording_of
from langptune_rs.data.store.sessions import Sessions
from langptune_rs.data.wording.templates import PAPER_STYLE, HistoryText, PromptOptions, Template
from langptune_rs.seeds import derive_seed, generator


@dataclass(frozen=True, eq=False)
class Dataset:
    """A prepared data set."""

    catalog: Catalog
    sessions: Sessions
    template: Template
    info: dict[str, Any]
    """The content of `dataset.toml`: source, configuration, counts after each filter, leakage report, hashes."""

    @property
    def rating_scale(self) -> RatingScale:
        """The scale that the ratings had in the files. Here they are from 0 to 5."""
        text = self.info["config"].get("rating_scale")
        return STARS if text is None else parse_scale(text)

    @cached_property
    def content(self) -> dict[str, str]:
        """What the data set holds: a SHA-256 of each of `PARTS`, the same however its files are written.

        That of a data set on disk is in `dataset.toml`, and those of others are computed here.
        """
        known = content_in(self.info) or content_of(self.catalog, self.sessions)
        return {**known, "wording": wording_of(self.template)}

    @cached_property
    def popularity(self) -> np.ndarray:
        """The number of interactions of each item, int64 (n_items,).

        The histories of all splits count, but only the targets of train sessions.
        """
        is_train = self.sessions.splits.mask("train")
        seen = np.concatenate([self.sessions.histories.ravel(), self.sessions.targets[is_train]])
        return np.bincount(seen, minlength=len(self.catalog)).astype(np.int64)

    def with_train_share(self, share: float, seed: int) -> Dataset:
        """This data set with a share of its train sessions, at least one; the sessions of the other splits stay.

        They are drawn without replacement with the `seed` of a run, and keep their order. With one seed a smaller share
        is part of a larger one.
        """
        if share == 1:
            return self
        is_train = self.sessions.splits.mask("train")
        drawn = generator(derive_seed(seed, "train-share")).permutation(np.flatnonzero(is_train))
        kept = drawn[: train_sessions_in(share, len(drawn))]
        return replace(self, sessions=self.sessions.take(np.sort(np.concatenate([np.flatnonzero(~is_train), kept]))))

    def prompt(self, sessions: Sessions, i: int, style: PromptOptions = PAPER_STYLE) -> str:
        """The message to the policy for row i of `sessions`: the instruction, then the history, oldest item first."""
        return self.history_prompt(sessions.histories[i], sessions.ratings[i], sessions.reviews[i], style)

    def history_prompt(
        self,
        items: Sequence[int] | np.ndarray,
        ratings: Sequence[float] | np.ndarray,
        reviews: Sequence[str | None],
        style: PromptOptions = PAPER_STYLE,
    ) -> str:
        """`prompt` for a history outside of any session.

        `items` are H item indexes, `ratings` H numbers from 0 to 5 or NaN, and `reviews` H texts or None.
        """
        return self.template.prompt(self._entries(items, ratings, reviews, style.history_text), style)

    def session_text(self, sessions: Sessions, i: int) -> str:
        """The full history of row i of `sessions` without an instruction. EMB-0 reads it as the query."""
        return "\n\n".join(self._entries(sessions.histories[i], sessions.ratings[i], sessions.reviews[i], "full"))

    def history_titles(self, sessions: Sessions, i: int) -> str:
        """The titles of the history of row i of `sessions` in one line, oldest first.

        An item without a title has the first words of its description or its categories, as in the catalog.
        """
        return "; ".join(self.catalog.titles[sessions.histories[i]])

    def _entries(
        self,
        items: Sequence[int] | np.ndarray,
        ratings: Sequence[float] | np.ndarray,
        reviews: Sequence[str | None],
        history_text: HistoryText,
    ) -> list[str]:
        """One text per history item."""
        texts = self.catalog.texts if history_text == "full" else self.catalog.lines
        return [
            self.template.history_entry(
                texts[item], None if math.isnan(rating) else float(rating), review, history_text
            )
            for item, rating, review in zip(items, ratings, reviews, strict=True)
        ]


def train_sessions_in(share: float, num_train: int) -> int:
    """How many of `num_train` sessions a share of them is: the nearest whole number, at least 1."""
    return max(1, round(share * num_train))
