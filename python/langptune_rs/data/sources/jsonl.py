"""The user's own `items.jsonl` and `interactions.jsonl`, plain or .gz.

Items: item_id, title, description, categories, price, average_rating; interactions: user_id, item_id, rating (0 to 5),
timestamp or position, review_text. Only the ids are needed. A null is a missing value, and other fields are ignored.
"""

from __future__ import annotations

from langptune_rs.data.readers.json_lines import JsonLines
from langptune_rs.data.readers.values import INTERACTION_KINDS, ITEM_KINDS, Kind
from langptune_rs.data.sources.files import Files, RawLogs, Role

FILES = "items.jsonl and interactions.jsonl, plain or .gz; --column item_id=asin where your fields have other names"


def open_logs(files: Files) -> RawLogs:
    """The two files. Raises `DataError` when one is missing, or is there both plain and as .gz."""
    items, interactions = _open(files, "items", ITEM_KINDS), _open(files, "interactions", INTERACTION_KINDS)
    return RawLogs(items, interactions, template="generic")


def _open(files: Files, role: Role, kinds: dict[str, Kind]) -> JsonLines:
    return JsonLines(
        files.find(role, "jsonl", f"{role}.jsonl"),
        {column: (files.columns.get(column, column), kind) for column, kind in kinds.items()},
        required=frozenset(key for column, key in files.columns.items() if column in kinds and column != "item_id"),
    )
