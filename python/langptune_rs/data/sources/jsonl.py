"""A user's own logs: a folder with items.jsonl and interactions.jsonl, plain or .gz."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from langptune_rs.data.sources.logs import INTERACTION_SCHEMA, ITEM_SCHEMA, Logs
from langptune_rs.errors import DataError

EXCERPT_LENGTH = 80


def read(folder: Path) -> Logs:
    """Read both files.

    Items have item_id and title, and may have description, categories and price. Interactions have user_id and
    item_id, and may have rating (0 to 5), timestamp (seconds) or position (order), and review_text.

    Raises `DataError` with file and line for broken JSON, a missing or wrongly typed field, a duplicate item, or an
    interaction with an unknown item.
    """
    items_file, interactions_file = _find(folder, "items.jsonl"), _find(folder, "interactions.jsonl")
    items = [_item(row, where) for row, where in rows(items_file)]
    known: set[str] = set()
    for number, item in enumerate(items, 1):
        if item["item_id"] in known:
            raise DataError(
                f"{items_file}, line {number}: the item {item['item_id']!r} is there a second time. "
                "Keep one line for each item_id."
            )
        known.add(item["item_id"])
    interactions = []
    for row, where in rows(interactions_file):
        interaction = _interaction(row, where)
        if interaction["item_id"] not in known:
            raise DataError(
                f"{where}: the item {interaction['item_id']!r} is not in {items_file.name}. "
                "Add it there, or remove the interaction."
            )
        interactions.append(interaction)
    if not interactions:
        raise DataError(f"{interactions_file} holds no interaction.")
    return Logs(
        name=str(folder),
        template="items",
        items=pl.DataFrame(items, schema=ITEM_SCHEMA),
        interactions=pl.DataFrame(interactions, schema=INTERACTION_SCHEMA),
        files=[items_file, interactions_file],
    )


def rows(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Each object of a JSON-lines file with "FILE, line N", for messages. Raises `DataError` for a broken line."""
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _parse(line, f"{path}, line {number}"), f"{path}, line {number}"
    except UnicodeDecodeError as error:
        raise DataError(f"{path}, after line {number}: not valid UTF-8 ({error.reason}). Convert the file to UTF-8.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}, after line {number}: the gzip file is cut off or broken. Copy it again.") from error


def _parse(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: broken JSON ({error.msg} at column {error.colno}): {_excerpt(line)}") from error
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object: {_excerpt(line)}")
    return row


def _excerpt(line: str) -> str:
    line = line.strip()
    return line if len(line) <= EXCERPT_LENGTH else line[:EXCERPT_LENGTH] + "..."


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / name, folder / f"{name}.gz"):
        if candidate.is_file():
            return candidate
    raise DataError(f"{folder} has no {name} and no {name}.gz. A folder of your own logs needs items.jsonl and interactions.jsonl.")


def _item(row: dict[str, Any], where: str) -> dict[str, Any]:
    item = {
        "item_id": _identifier(row, "item_id", where),
        "title": _text(row, "title", where),
        "description": _text(row, "description", where),
        "categories": _categories(row, where),
        "price": number(row, "price", where),
    }
    if not (item["title"] or item["description"] or item["categories"]):
        raise DataError(
            f"{where}: the item {item['item_id']!r} has no title, no description and no categories, so there is no text "
            "to rank it by. Give it one, or remove it and its interactions."
        )
    return item


def _interaction(row: dict[str, Any], where: str) -> dict[str, Any]:
    rating = number(row, "rating", where)
    if rating is not None and not 0 <= rating <= 5:
        raise DataError(f"{where}: the rating {rating:g} is outside 0 to 5. Rescale the ratings.")
    return {
        "user_id": _identifier(row, "user_id", where),
        "item_id": _identifier(row, "item_id", where),
        "rating": rating,
        "timestamp": _whole(row, "timestamp", where),
        "position": _whole(row, "position", where),
        "review_text": _text(row, "review_text", where),
    }


def _identifier(row: dict[str, Any], name: str, where: str) -> str:
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise DataError(f"{where}: {name} is {value!r}, but every line needs a non-empty string or whole number there.")
    return str(value)


def _text(row: dict[str, Any], name: str, where: str) -> str | None:
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, list):
        value = " ".join(part for part in value if isinstance(part, str))
    if not isinstance(value, str):
        raise DataError(f"{where}: {name} is {value!r}, which is no text.")
    return " ".join(value.split()) or None


def _categories(row: dict[str, Any], where: str) -> list[str] | None:
    value = row.get("categories")
    if value is None:
        return None
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise DataError(f"{where}: categories is {value!r}, but must be a list of strings.")
    return [part.strip() for part in value if part.strip()] or None


def number(row: dict[str, Any], name: str, where: str) -> float | None:
    """A finite number of a row, or None. Raises `DataError` for anything else."""
    value = row.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where}: {name} is {value!r}, which is no number.")
    return float(value)


def _whole(row: dict[str, Any], name: str, where: str) -> int | None:
    value = number(row, name, where)
    return None if value is None else int(value)
