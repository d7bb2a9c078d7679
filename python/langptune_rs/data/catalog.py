"""A prepared data set in memory: the catalog, the sessions and how they are shown as text."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np

from langptune_rs.data.templates import Template
from langptune_rs.errors import DataError

Split = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Catalog:
    """The items, in index order. Every item index in a data set points here."""

    item_ids: list[str]
    titles: list[str]
    texts: list[str]
    """What the embedder sees of an item."""

    def __len__(self) -> int:
        return len(self.item_ids)

    @cached_property
    def _indexes(self) -> dict[str, int]:
        return {item_id: i for i, item_id in enumerate(self.item_ids)}

    def index_of(self, item_id: str) -> int:
        """Index of an item by its id, or by its exact title. Raises `DataError` with the nearest title."""
        if item_id in self._indexes:
            return self._indexes[item_id]
        if item_id in self.titles:
            return self.titles.index(item_id)
        near = difflib.get_close_matches(item_id, self.titles, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise DataError(f"There is no item with the id or title {item_id!r} in the catalog of {len(self)} items.{hint}")


@dataclass(frozen=True)
class Sessions:
    """n sessions: H history items, oldest first, then the target. Items are indexes into the catalog."""

    session_ids: np.ndarray
    """int64 (n,)."""
    user_ids: list[str]
    histories: np.ndarray
    """int32 (n, H)."""
    ratings: np.ndarray
    """float32 (n, H), NaN where there is none."""
    reviews: list[list[str | None]]
    targets: np.ndarray
    """int32 (n,)."""
    splits: list[str]

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Sequence[int] | np.ndarray) -> Sessions:
        """The sessions at `rows`, in that order."""
        rows = np.asarray(rows, dtype=np.int64)
        columns = {f.name: getattr(self, f.name) for f in fields(self)}
        return Sessions(
            **{
                name: column[rows] if isinstance(column, np.ndarray) else [column[i] for i in rows.tolist()]
                for name, column in columns.items()
            }
        )

    def select(self, split: Split) -> Sessions:
        """The sessions of one split. Raises `DataError` when the split is unknown or holds none."""
        rows = [i for i, s in enumerate(self.splits) if s == split]
        if not rows:
            held = ", ".join(sorted(set(self.splits)))
            raise DataError(f"There is no session in the split {split!r}; this data set has {held}.")
        return self.take(rows)


@dataclass(frozen=True)
class Dataset:
    """Catalog, sessions and template, with what is known about where they come from (`dataset.toml`)."""

    catalog: Catalog
    sessions: Sessions
    template: Template
    info: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def popularity(self) -> np.ndarray:
        """Interactions with each item that a recommender may know, int64 (items,).

        Training sessions count whole, of validation and test sessions only the history (section 4.2, footnote 1).
        """
        seen = [self.sessions.histories.ravel()]
        train = [i for i, split in enumerate(self.sessions.splits) if split == "train"]
        seen.append(self.sessions.targets[train])
        return np.bincount(np.concatenate(seen), minlength=len(self.catalog)).astype(np.int64)

    def prompt(
        self,
        sessions: Sessions,
        i: int,
        *,
        instruction: str | None = None,
        closing: str = "",
        history_text: Literal["full", "titles"] = "full",
    ) -> str:
        """What the policy is asked about session i: instruction, history with ratings and reviews, closing words."""
        return self.template.prompt(
            *self._history(sessions, i, history_text),
            sessions.ratings[i].tolist(),
            sessions.reviews[i],
            instruction=instruction,
            closing=closing,
        )

    def session_text(self, sessions: Sessions, i: int) -> str:
        """The history of session i with its ratings and reviews as one text, the query of EMB-0."""
        return self.template.session(
            *self._history(sessions, i, "full"), sessions.ratings[i].tolist(), sessions.reviews[i]
        )

    def _history(self, sessions: Sessions, i: int, history_text: str) -> tuple[list[str]]:
        items = sessions.histories[i].tolist()
        if history_text == "titles":
            return ([self.template.title(self.catalog.titles[item]) for item in items],)
        return ([self.catalog.texts[item] for item in items],)
