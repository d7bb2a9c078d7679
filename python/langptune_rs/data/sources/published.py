"""The paper's published split: tokenised sets on the hub whose sessions and train, validation and test are fixed.

Two sets belong together. The items have `index`, `item_descriptions` (text) and `item_description_tokens`. The
sessions have the splits `train`, `val` and `test`, with `in_sess_item_idxs` (the history), `out_sess_item_idxs` (the
target), `sess_descriptions` (the whole prompt, with every rating and review) and the same as tokens in
`sess_description_gemma` or `sess_description_llama`. Their `index` counts the sessions of a split from 0.

Texts are preferred to tokens, since the embedder's tokens have lost case and accents. A set without texts is decoded. A
session names its items by the column `index` of the item set. The reference code takes the number of the row instead,
which is another one from the first item on that was left out as too long. Every history is compared with the texts in
its prompt, so that shifted labels are found and refused.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from langptune_rs.data.readers.cleaning import clean
from langptune_rs.data.sources.failures import reason
from langptune_rs.data.sources.published_sets import SPLITS, load
from langptune_rs.data.store.schema import ITEM_FIELDS, SESSION_COLUMNS
from langptune_rs.data.wording.excerpts import shorten
from langptune_rs.errors import DataError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

NAME = "published"
"""The name of the source, and of its split."""
FILES = "the paper's own split, from the hub or --items and --interactions: folders of save_to_disk or of its parquet"
TEMPLATE = "movies"
ITEMS = "Cornell-AGI/amazon_movie_tv_item_mxbai"
SESSIONS = "Cornell-AGI/amazon_movie_tv_llama_mxbai"
ITEM_TOKENIZER = "mixedbread-ai/mxbai-embed-large-v1"
SESSION_TOKENIZERS = {
    "sess_description_llama": "meta-llama/Meta-Llama-3-8B-Instruct",
    "sess_description_gemma": "google/gemma-2b-it",
}

Compat = Literal["paper", "reference"]

_INDEX, _ITEM_TEXT, _ITEM_TOKENS = "index", "item_descriptions", "item_description_tokens"
_HISTORY, _TARGET, _PROMPT = "in_sess_item_idxs", "out_sess_item_idxs", "sess_descriptions"
_COLUMNS = (_INDEX, _ITEM_TEXT, _ITEM_TOKENS, _HISTORY, _TARGET, _PROMPT, *SESSION_TOKENIZERS)
"""The columns that are read."""
_SESSION_FIELDS = ("session_id", "user_id", "history", "ratings", "reviews", "target", "target_timestamp", "split")
_SESSION_SCHEMA = pl.Schema({name: SESSION_COLUMNS[name] for name in _SESSION_FIELDS})

_ITEM = re.compile(
    r"Title: (.*?)\nDescription: \(average rating: ([^)]*)\) (.*)\nCategory: (.*)\nPrice: (.*)", re.DOTALL
)
_DECODED_ITEM = re.compile(
    r"\s*title\s*:\s*(.*?)\s+description\s*:\s*\(\s*average rating\s*:\s*([^)]*)\)\s*"
    r"(.*)\bcategory\s*:\s*(.*)\sprice\s*:\s*(.*?)\s*",
    re.DOTALL | re.IGNORECASE,
)
_USER_TURN = re.compile(
    r"(?:<start_of_turn>user|<\|start_header_id\|>user<\|end_header_id\|>)(.*)(?:<end_of_turn>|<\|eot_id\|>)", re.DOTALL
)
_RATING = re.compile(r"Review from the user\s*:\s*\(\s*rating\s*:\s*([^)]*)\)")
_RATING_KEY = "reviewfromtheuserrating"


@dataclass(frozen=True)
class Published:
    """The two tables of a data set, and what became of the published rows."""

    items: pl.DataFrame
    sessions: pl.DataFrame
    report: dict[str, int]
    """The number of items and sessions that were published, and that were left out for each reason."""


def read(
    items: str | Path = ITEMS,
    sessions: str | Path = SESSIONS,
    *,
    compat: Compat = "paper",
    item_tokenizer: str = ITEM_TOKENIZER,
    session_tokenizer: str | None = None,
) -> Published:
    """Items and sessions in the columns of a prepared data set, without those that a template or a tokenizer fills.

    `items` and `sessions` are hub ids or local copies: folders that `save_to_disk` wrote, or folders with the hub's
    parquet files. The id of an item is its `index`. The id of a user is the published split with the session's `index`
    (`val-17`), since the sets name no users. With `compat="paper"` texts are cleaned, and a session that repeats an
    item is left out, since the paper asks for distinct items. With `compat="reference"` texts stay as they were
    published, and such a session is left out only if its target is in its history. Tokenizers are for sets without
    texts. Each is a hub id or a folder with `tokenizer.json`.

    Raises `DataError` when a set cannot be reached or lacks a column or a split, for a text that is not of the
    published form, and when the labels in the sessions do not fit the items.
    """
    item_rows, _ = load(items, _COLUMNS)
    splits, num_labels = load(sessions, _COLUMNS)
    texts = _item_texts(items, item_rows, num_labels, item_tokenizer)
    fields = [_fields(items, index, text, compat) for index, text in sorted(texts.items())]
    table, left_out = _sessions(sessions, splits, texts, compat, session_tokenizer)
    report = {
        "items": len(texts),
        "sessions": sum(map(len, splits.values())),
        "items_left_out_before": max(num_labels or 0, max(texts) + 1) - len(texts),
        **left_out,
    }
    return Published(pl.DataFrame(fields, schema=ITEM_FIELDS), table, report)


# Items


def _item_texts(
    source: str | Path, splits: Mapping[str, pl.DataFrame], num_labels: int | None, tokenizer: str
) -> dict[int, str]:
    """Label -> text of each item.

    Raises `DataError` for a label given twice, and for a set without labels where some items were left out, so that
    the number of a row is not the label.
    """
    rows = pl.concat(splits.values(), how="vertical_relaxed")
    if not len(rows):
        raise DataError(f"{source} holds no items.")
    texts = _texts(source, rows, _ITEM_TEXT, {_ITEM_TOKENS: tokenizer}, "item_tokenizer", skip_special_tokens=True)
    if _INDEX in rows.columns:
        labels = rows[_INDEX].to_list()
    elif num_labels in (None, len(rows)):
        labels = list(range(len(rows)))
    else:
        raise DataError(
            f"{source} has {len(rows)} items and no column {_INDEX!r}, but the sessions count {num_labels} items: some "
            "were left out, so that a row's number does not say which item it is. Give the set with its index."
        )
    found = dict(zip(labels, texts, strict=True))
    if None in found or len(found) != len(rows):
        label = next(label for label, times in Counter(labels).items() if times > 1 or label is None)
        raise DataError(f"{source}: the index {label} is there twice, or is missing. Each item has its own.")
    return found


def _fields(source: str | Path, index: int, text: str, compat: Compat) -> dict[str, Any]:
    """The row of an item. A field that reads `None` in its text is None."""
    found = _ITEM.fullmatch(text) or _DECODED_ITEM.fullmatch(text)
    if found is None:
        raise DataError(
            f"{source}: the item {index} has the text {shorten(text, 60)!r}, which is not of the published form: lines "
            "of Title, Description with an average rating, Category and Price."
        )
    title, rating, description, categories, price = (
        None if field.strip().lower() in ("none", "nan", "") else clean(field) if compat == "paper" else field
        for field in found.groups()
    )
    return {
        "item_id": str(index),
        "title": title,
        "description": description,
        "categories": categories.split(", ") if categories else [],
        "price": price,
        "average_rating": _number(rating),
    }


def _number(text: str | None) -> float | None:
    """The number in a text, even where a tokenizer left spaces in it. None where there is no number."""
    try:
        number = float("".join((text or "").split()))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


# Sessions


def _sessions(
    source: str | Path,
    splits: Mapping[str, pl.DataFrame],
    texts: Mapping[int, str],
    compat: Compat,
    tokenizer: str | None,
) -> tuple[pl.DataFrame, dict[str, int]]:
    """The sessions that can be used, and the number of sessions left out for each reason."""
    keys = {index: _comparable(text)[0] for index, text in texts.items()}
    left_out = dict.fromkeys(("sessions_with_an_item_left_out", "sessions_that_repeat_an_item"), 0)
    kept: list[dict[str, Any]] = []
    mismatches: list[str] = []
    num_read = 0
    for name, rows in _three_splits(source, splits).items():
        for index, history, target, prompt in _rows(source, name, rows, tokenizer):
            num_read += 1
            distinct = {*history, target}
            if not distinct <= texts.keys():
                left_out["sessions_with_an_item_left_out"] += 1
                continue
            entries = _entries(prompt, [keys[item] for item in history])
            if isinstance(entries, int):
                label = history[entries]
                mismatches.append(
                    f"{name}-{index} has the item {label}, but not its text {shorten(texts[label], 60)!r}"
                )
            elif target in history or (compat == "paper" and len(distinct) <= len(history)):
                left_out["sessions_that_repeat_an_item"] += 1
            else:
                reviews = [clean(review) if compat == "paper" else review for _, review in entries]
                session = {
                    "session_id": len(kept),
                    "user_id": f"{name}-{index}",
                    "history": [str(item) for item in history],
                    "ratings": [rating for rating, _ in entries],
                    "reviews": [review or None for review in reviews],
                    "target": str(target),
                    "target_timestamp": None,
                    "split": SPLITS[name],
                }
                kept.append(session)
    if mismatches:
        raise DataError(
            f"{source} does not fit the items: {len(mismatches)} of {num_read} sessions name items whose texts are not "
            f"in their prompts. The first: {mismatches[0]}. Labels are shifted where items were left out after the "
            "sessions were numbered; give the item set, with its index, that these sessions were made with."
        )
    table = pl.DataFrame(kept, schema=_SESSION_SCHEMA)
    _refuse_empty(source, {name: table.filter(split=ours).height for name, ours in SPLITS.items() if name in splits})
    return table, left_out


def _three_splits(source: str | Path, splits: Mapping[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    """Train, validation, test. Raises `DataError` when one is missing."""
    found = {name: splits[name] for name in SPLITS if name in splits}
    if len({SPLITS[name] for name in found}) != 3 or len(found) != 3:
        raise DataError(
            f"{source} has the splits {', '.join(splits)}, but train, val and test are needed. A set with only "
            "train and test is the one before targets were chosen and validation was split off."
        )
    _refuse_empty(source, {name: len(rows) for name, rows in found.items()})
    return found


def _refuse_empty(source: str | Path, counts: Mapping[str, int]) -> None:
    empty = [name for name, count in counts.items() if not count]
    if empty:
        raise DataError(f"{source}: no session of the split {empty[0]!r} can be used.")


def _rows(
    source: str | Path, name: str, rows: pl.DataFrame, tokenizer: str | None
) -> Iterator[tuple[int, list[int], int, str]]:
    """Yield index, history, target and the user's turn of the prompt of each session."""
    missing = {_HISTORY, _TARGET} - set(rows.columns)
    if missing:
        raise DataError(f"{source} lacks the column {min(missing)!r}. It has {', '.join(rows.columns)}.")
    tokenizers = {column: tokenizer or own for column, own in SESSION_TOKENIZERS.items()}
    prompts = _texts(source, rows, _PROMPT, tokenizers, "session_tokenizer", skip_special_tokens=False)
    indexes = rows[_INDEX].to_list() if _INDEX in rows.columns else list(range(len(rows)))
    if len(set(indexes)) != len(indexes):
        raise DataError(f"{source}: an index is there twice in the split {name!r}. Each session has its own.")
    for index, history, targets, prompt in zip(
        indexes, rows[_HISTORY].to_list(), rows[_TARGET].to_list(), prompts, strict=True
    ):
        turn = _USER_TURN.search(prompt or "")
        if not history or len(targets or ()) != 1 or turn is None:
            raise DataError(
                f"{source}: the session {name}-{index} is not of the published form, which has a history, one target "
                "and a prompt with the user's turn as Gemma or Llama 3 marks it."
            )
        yield index, history, targets[0], turn[1]


def _entries(turn: str, keys: Sequence[str]) -> list[tuple[float | None, str]] | int:
    """Rating and review of each item of a history, or the place of the first item that is not in the prompt.

    `keys` are the texts of the items after `_comparable`. A review ends where the text of the next item begins,
    whatever the review says.
    """
    comparable, places = _comparable(turn)
    starts, ratings = [], []
    position = 0
    for place, key in enumerate(keys):
        start = comparable.find(key + _RATING_KEY, position)
        rating = _RATING.match(turn, places[start + len(key)]) if start >= 0 else None
        if rating is None:
            return place
        starts.append(int(places[start]))
        ratings.append(rating)
        position = start + len(key) + len(_RATING_KEY)
    ends = [*starts[1:], len(turn)]
    return [(_number(rating[1]), turn[rating.end() : end].strip()) for rating, end in zip(ratings, ends, strict=True)]


class _Folded(dict[str, str]):
    """Character -> what is compared of it: a letter without case and accents, or a digit.

    Tokenizers keep these. Spaces, punctuation and rare characters may come back changed or not at all.
    """

    def __missing__(self, char: str) -> str:
        plain = unicodedata.normalize("NFD", char).lower()
        self[char] = "".join(part for part in plain if part.isascii() and part.isalnum())
        return self[char]


_FOLDED = _Folded()


def _comparable(text: str) -> tuple[str, np.ndarray]:
    """The part of `text` that is compared, and the place in `text` of each of its characters, int64."""
    folded = [_FOLDED[char] for char in text]
    lengths = np.fromiter(map(len, folded), dtype=np.int64, count=len(folded))
    return "".join(folded), np.repeat(np.arange(len(folded)), lengths)


# Texts and tokens


def _texts(
    source: str | Path,
    rows: pl.DataFrame,
    text: str,
    tokens: Mapping[str, str],
    option: str,
    *,
    skip_special_tokens: bool,
) -> list[str]:
    """The column `text`, or a column of `tokens` decoded by its tokenizer."""
    if text in rows.columns:
        return rows[text].to_list()
    column = next((column for column in tokens if column in rows.columns), None)
    if column is None:
        raise DataError(f"{source} has neither {text!r} nor {' nor '.join(map(repr, tokens))}.")
    tokenizer = _tokenizer(tokens[column], source, column, option)
    return tokenizer.decode_batch(rows[column].to_list(), skip_special_tokens=skip_special_tokens)


def _tokenizer(name: str, source: str | Path, column: str, option: str) -> Tokenizer:
    from tokenizers import Tokenizer

    file = Path(name).expanduser() / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(file)) if file.is_file() else Tokenizer.from_pretrained(name)
    except Exception as error:  # the library raises plain Exception
        raise DataError(
            f"{source} has no texts, and {column!r} needs the tokenizer {name}, which cannot be loaded "
            f"({reason(error)}). Give {option}, a folder with the tokenizer.json that wrote these tokens."
        ) from error
