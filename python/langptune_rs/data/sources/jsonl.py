"""The user's own `items.jsonl` and `interactions.jsonl`, plain or .gz.

Items: item_id, title, description, categories, price, average_rating; interactions: user_id, item_id, rating (0 to 5),
timestamp or position, review_text. Only the ids are needed; null means missing; other fields are passed over.
"""

from __future__ import annotations

from langptune_rs.data.readers.json_lines import JsonLines
from langptune_rs.data.readers.values import INTERACTION_KINDS, ITEM_KINDS
from langptune_rs.data.sources.files import Files, RawLogs

FILES = "items.jsonl and interactions.jsonl, plain or .gz; --column item_id=asin where your fields have other names"


def open_logs(files: Files) -> RawLogs:
    """The two files. Raises `DataError` when one is missing or there both plain and .gz."""
    items, interactions = (
        JsonLines(
            files.find(role, "jsonl", f"{role}.jsonl"),
            {name: (files.columns.get(name, name), kind) for name, kind in fields.items()},
            required=frozenset(key for name, key in files.columns.items() if name in fields and name != "item_id"),
        )
        for role, fields in (("items", ITEM_KINDS), ("interactions", INTERACTION_KINDS))
    )
    return RawLogs(items, interactions, template="generic")
