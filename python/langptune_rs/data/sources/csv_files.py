"""The user's own `items.csv` and `interactions.csv`, with commas, semicolons or tabs, plain or .gz.

The first line names the columns, which are those of the source `jsonl`. A blank field is missing. Categories are in one
field, separated by `|`. A field that holds a separator, a quote or a line end is in "quotes".
"""

from __future__ import annotations

from langptune_rs.data.readers.form import read_form
from langptune_rs.data.readers.separated import SeparatedFile
from langptune_rs.data.sources.files import Files, RawLogs
from langptune_rs.data.sources.own_columns import match_columns

FILES = (
    "items.csv and interactions.csv (or .tsv; separated by comma, semicolon or tab), plain or .gz; "
    "--column item_id=asin where your columns have other names"
)


def open_logs(files: Files) -> RawLogs:
    """The two files. Raises `DataError` when one is missing, or lacks an id or a mapped column."""
    items, interactions = (files.find(role, "csv", f"{role}.csv", f"{role}.tsv") for role in ("items", "interactions"))
    item_form, interaction_form = read_form(items), read_form(interactions)
    item_fields, interaction_fields = match_columns(files, items, item_form.names, interactions, interaction_form.names)
    return RawLogs(
        SeparatedFile(items, item_form, item_fields),
        SeparatedFile(interactions, interaction_form, interaction_fields),
        template="generic",
    )
