"""What a data set holds, as hashes that do not depend on how its files are written.

Two data sets with the same hashes train and evaluate a run alike, on any machine and by any version of the libraries.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from langptune_rs.data.store.catalog import Catalog
from langptune_rs.data.store.columns import ArrowColumn
from langptune_rs.data.store.sessions import Sessions
from langptune_rs.data.wording.templates import HistoryText, Template

PARTS = {
    "items": "the items",
    "sessions": "the histories",
    "targets": "what was chosen next",
    "splits": "which sessions train and which are held out",
    "wording": "the wording of the prompts",
}
"""The parts of a data set that have a hash each, in words."""

_ROWS_PER_BLOCK = 65_536
_OF = "files"
_SHOWN: tuple[HistoryText, ...] = ("full", "brief")


def content_of(catalog: Catalog, sessions: Sessions) -> dict[str, str]:
    """The hash of each of `PARTS` but the wording, SHA-256 in hexadecimal. Every value that a run reads is in one."""
    return {
        "items": _digest(catalog.item_ids, catalog.titles, catalog.texts, catalog.lines),
        "sessions": _digest(
            sessions.session_ids, sessions.user_ids, sessions.histories, sessions.ratings, sessions.reviews
        ),
        "targets": _digest(sessions.targets),
        "splits": _digest(sessions.splits.codes),
    }


def written_content(catalog: Catalog, sessions: Sessions, hashes: Mapping[str, str]) -> dict[str, str]:
    """`content_of` as `dataset.toml` has it: beside a hash of the `hashes` of the files that hold it."""
    return {**content_of(catalog, sessions), _OF: _hash_of(hashes)}


def content_in(info: Mapping[str, Any]) -> dict[str, str] | None:
    """`content_of` as a `dataset.toml` says; None where it says nothing, or has since got the hashes of other files."""
    written = dict(info.get("content", {}))
    return written if written.pop(_OF, None) == _hash_of(info.get("sha256", {})) else None


def _hash_of(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def wording_of(template: Template) -> str:
    """The hash of what a template writes into prompts: its instruction, and an item with and without its review."""
    entries = [
        template.history_entry("Title: Title", rating, review, shown)
        for rating in (None, 4.5)
        for review in (None, "Review")
        for shown in _SHOWN
    ]
    return _hash_of([template.source, template.instruction, entries])


def _digest(*columns: np.ndarray | ArrowColumn[Any]) -> str:
    """The hash of columns of one length."""
    digest = hashlib.sha256()
    for column in columns:
        if isinstance(column, np.ndarray):
            _add_numbers(digest, column)
        else:
            _add_column(digest, column.to_arrow())
    return digest.hexdigest()


def _add_numbers(digest: Any, numbers: np.ndarray) -> None:
    """Add an array. Every NaN counts as the same one."""
    if numbers.dtype.kind == "f":
        numbers = np.where(np.isnan(numbers), numbers.dtype.type(np.nan), numbers)
    digest.update(f"{numbers.dtype} {numbers.shape};".encode())
    digest.update(np.ascontiguousarray(numbers))


def _add_column(digest: Any, column: pa.ChunkedArray) -> None:
    """Add texts, or lists of texts, in blocks that do not depend on the chunks in which they are."""
    for start in range(0, len(column), _ROWS_PER_BLOCK):
        _add_texts(digest, pa.concat_arrays(column.slice(start, _ROWS_PER_BLOCK).chunks))


def _add_texts(digest: Any, texts: pa.Array) -> None:
    if pa.types.is_large_list(texts.type):
        _add_numbers(digest, pc.list_value_length(texts).to_numpy(zero_copy_only=False))
        _add_texts(digest, texts.flatten())
        return
    lengths = pc.fill_null(pc.binary_length(texts), -1)  # no text, which is not an empty one
    _add_numbers(digest, lengths.to_numpy(zero_copy_only=False))
    written = texts.drop_null()
    if len(written):
        _, offsets, data = written.buffers()
        ends = np.frombuffer(offsets, np.int64)[written.offset : written.offset + len(written) + 1]
        digest.update(memoryview(data)[ends[0] : ends[-1]])
