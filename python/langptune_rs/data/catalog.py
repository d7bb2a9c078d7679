"""The items that can be recommended."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from functools import cached_property

from langptune_rs.errors import DataError


@dataclass(frozen=True, eq=False)
class Catalog:
    """All items of a data set. An item's index is its place in these lists and in every array of the project."""

    item_ids: list[str]
    titles: list[str]
    """Title of each item; the first words of its description where it has none."""
    texts: list[str]
    """What the embedder reads of each item, written by the template."""
    lines: list[str]
    """Each item in one line, for short prompts."""

    def __len__(self) -> int:
        return len(self.item_ids)

    def index_of(self, item_id: str) -> int:
        """The index of an item. Raises `DataError`, with the nearest id, when there is no such item."""
        try:
            return self._indexes[item_id]
        except KeyError:
            raise DataError(
                f"There is no item with the id {item_id!r} among the {len(self)} items of the catalog."
                + nearest(item_id, self.item_ids)
            ) from None

    def index_of_title(self, title: str) -> int:
        """The index of the item with this title, in upper or lower case; of several the first.

        Raises `DataError`, with the nearest title, when there is none.
        """
        try:
            return self._title_indexes[title.strip().casefold()]
        except KeyError:
            raise DataError(f"No item of the catalog has the title {title!r}." + nearest(title, self.titles)) from None

    @cached_property
    def _indexes(self) -> dict[str, int]:
        return {item_id: i for i, item_id in enumerate(self.item_ids)}

    @cached_property
    def _title_indexes(self) -> dict[str, int]:
        return {self.titles[i].casefold(): i for i in reversed(range(len(self)))}


def nearest(wanted: str, known: list[str]) -> str:
    """` Did you mean ...?` with the name most like `wanted`, or nothing."""
    by_lower_case = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(wanted.casefold(), by_lower_case, n=1, cutoff=0.6)
    return f" Did you mean {by_lower_case[near[0]]!r}?" if near else ""
