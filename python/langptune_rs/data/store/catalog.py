"""The items that can be recommended."""

from __future__ import annotations

from dataclasses import dataclass, fields

import pyarrow as pa

from langptune_rs.data.store.columns import TextColumn
from langptune_rs.errors import DataError, nearest


@dataclass(frozen=True, eq=False)
class Catalog:
    """All items of a data set. An item's index is its place in these columns and in every array of the project.

    The columns of a data set are mapped files, of which a text is read when it is asked for. Lists of texts are also
    accepted.
    """

    item_ids: TextColumn
    titles: TextColumn
    """The title of each item, or the first words of its description if it has no title."""
    texts: TextColumn
    """The text of each item that the embedder reads, written by the template."""
    lines: TextColumn
    """Each item in one line, for short prompts."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not isinstance(getattr(self, field.name), TextColumn):
                object.__setattr__(self, field.name, TextColumn(getattr(self, field.name)))

    def __len__(self) -> int:
        return len(self.item_ids)

    def index_of(self, item_id: str) -> int:
        """The index of an item. Raises `DataError`, with the nearest id, when there is no such item."""
        index = self.item_ids.find(item_id)
        if index is None:
            raise DataError(
                f"There is no item with the id {item_id!r} among the {len(self)} items of the catalog."
                + nearest(item_id, self.item_ids.near(item_id))
            )
        return index

    def index_of_title(self, title: str) -> int:
        """The index of the first item with this title, in upper or lower case.

        Raises `DataError`, with the nearest title, when there is none.
        """
        index = self.titles.find(title.strip(), any_case=True)
        if index is None:
            raise DataError(
                f"No item of the catalog has the title {title!r}." + nearest(title, self.titles.near(title))
            )
        return index

    def to_arrow(self) -> pa.Table:
        """A table of the four columns, one row per item. Nothing is copied."""
        return pa.table({field.name: getattr(self, field.name).to_arrow() for field in fields(self)})
