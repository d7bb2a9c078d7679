"""The user's own `items.parquet` and `interactions.parquet`.

The columns are those of the source `jsonl`. Ids are texts or whole numbers. Categories are a list of texts, or one text
with `|` between them. The timestamp is a number, a date or a time.
"""

from __future__ import annotations

from langptune_rs.data.readers.parquet import ParquetFile, parquet_types
from langptune_rs.data.sources.files import Files, RawLogs
from langptune_rs.data.sources.own_columns import match_columns

FILES = "items.parquet and interactions.parquet; --column item_id=asin where your columns have other names"


def open_logs(files: Files) -> RawLogs:
    """The two files. Raises `DataError` when one is missing or broken, or lacks an id or a mapped column."""
    items, interactions = (files.find(role, "parquet", f"{role}.parquet") for role in ("items", "interactions"))
    item_fields, interaction_fields = match_columns(
        files, items, parquet_types(items), interactions, parquet_types(interactions)
    )
    return RawLogs(ParquetFile(items, item_fields), ParquetFile(interactions, interaction_fields), template="generic")
