"""The columns of the user's own tables, found by the names of the schema or by a column map."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from langptune_rs.data.readers.form import missing_column
from langptune_rs.data.readers.values import INTERACTION_KINDS, ITEM_KINDS, Fields, Kind
from langptune_rs.data.sources.files import Files
from langptune_rs.errors import DataError


def match_columns(
    files: Files, items: Path, item_columns: Collection[str], interactions: Path, interaction_columns: Collection[str]
) -> tuple[Fields, Fields]:
    """The fields of both files, whose columns are `item_columns` and `interaction_columns`.

    A column has the name that `files.columns` gives it, or else its own name. A mapped `item_id` may be in only one of
    the files. The other then has it under its own name. Raises `DataError` for a mapped column that is not there, and
    for an id that has no column.
    """
    mapped_id = files.columns.get("item_id")
    if mapped_id not in (*item_columns, *interaction_columns):
        mapped_id = None
    return (
        _match(files, items, item_columns, ITEM_KINDS, mapped_id),
        _match(files, interactions, interaction_columns, INTERACTION_KINDS, mapped_id),
    )


def _match(
    files: Files, file: Path, there: Collection[str], kinds: dict[str, Kind], mapped_id: str | None
) -> dict[str, tuple[str, Kind]]:
    fields = {}
    for column, kind in kinds.items():
        name = files.columns.get(column, column)
        if column == "item_id" and mapped_id is not None and name not in there:
            name = column
        if name in there:
            fields[column] = (name, kind)
        elif column in files.columns or kind == "identifier":
            raise DataError(f"{missing_column(file, name, there)} Say which it is with --column {column}=NAME.")
    return fields
