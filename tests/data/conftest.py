"""Small logs on disk."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Rows = list[dict[str, Any]]


@pytest.fixture
def write_logs(tmp_path) -> Callable[..., Path]:
    """`write_logs(items, interactions)` makes a folder of JSON lines; a row that is a text is written as it is."""

    def write(items: Rows, interactions: Rows, *, name: str = "logs", gz: bool = False) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for file, rows in (("items.jsonl", items), ("interactions.jsonl", interactions)):
            text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
            if gz:
                (folder / f"{file}.gz").write_bytes(gzip.compress(text.encode()))
            else:
                (folder / file).write_text(text, encoding="utf-8")
        return folder

    return write


@pytest.fixture
def items() -> Rows:
    return [{"item_id": f"i{i}", "title": f"Item {i}"} for i in range(12)]


@pytest.fixture
def interactions(items) -> Rows:
    """30 users, each with 24 interactions with items that may repeat, in a shuffled file; every review is another."""
    rng = np.random.default_rng(5)
    rows = [
        {
            "user_id": f"u{user:02}",
            "item_id": items[item]["item_id"],
            "rating": float(rng.integers(1, 6)),
            "timestamp": 1000 * user + second,
            "review_text": f"user {user} said {second}",
        }
        for user in range(30)
        for second, item in enumerate(rng.integers(0, len(items), 24))
    ]
    return [rows[i] for i in rng.permutation(len(rows))]


@pytest.fixture
def logs(write_logs, items, interactions) -> Path:
    return write_logs(items, interactions)
