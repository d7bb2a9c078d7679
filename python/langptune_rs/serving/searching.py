"""Finding users and items by the beginning of what they are called, as a person types it."""

from __future__ import annotations

import pyarrow as pa

from langptune_rs.data import Catalog, Dataset
from langptune_rs.data.store.columns import TextColumn
from langptune_rs.errors import DataError, nearest

_NEAR = 2_000
"""Names around a misspelled one, among which the nearest is looked for."""


class Users:
    """The users of a data set, each once."""

    def __init__(self, dataset: Dataset):
        ids = dataset.sessions.user_ids.to_arrow().unique()
        self._ids = TextColumn(pa.chunked_array([ids]))
        self._ids.beginning_with("")  # sorts them now, not for the first who asks

    def __len__(self) -> int:
        return len(self._ids)

    def beginning_with(self, prefix: str, *, offset: int = 0, limit: int = 50) -> tuple[list[str], int]:
        """At most `limit` ids that begin with `prefix`, in any case and in alphabetical order, after `offset` others;
        and how many begin with it in all."""
        rows = self._ids.beginning_with(prefix)
        return self._ids[rows[offset : offset + limit]], len(rows)

    def check(self, user: str) -> None:
        """Raise `DataError`, with the nearest ids, where there is no such user."""
        if self._ids.find(user) is None:
            near = nearest(user, self._ids.near(user, _NEAR), most=3)
            raise DataError(
                f"There is no user {user!r} in the data of this run.{near} Users with too few interactions "
                "have no session: give the history of such a user."
            )


def find_items(catalog: Catalog, text: str, limit: int) -> list[int]:
    """Indexes of at most `limit` items: the one with this id, then those whose title begins with the text, then those
    whose title holds it, in any case."""
    by_id = catalog.item_ids.find(text)
    beginning = catalog.titles.beginning_with(text)[:limit].tolist()
    holding = catalog.titles.holding(text)[: 2 * limit].tolist() if len(beginning) < limit else []
    found = dict.fromkeys([*([] if by_id is None else [by_id]), *beginning, *holding])
    return list(found)[:limit]
