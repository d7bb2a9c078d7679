"""What is in a prepared data set, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from langptune_rs.data.preparing import leakage
from langptune_rs.data.store.dataset import Dataset
from langptune_rs.data.store.folder import ITEMS, SESSIONS, load
from langptune_rs.data.store.later_targets import later_targets
from langptune_rs.data.store.schema import ITEM_FIELDS
from langptune_rs.data.store.sessions import SPLITS
from langptune_rs.data.store.tables import scan_parquet
from langptune_rs.errors import DataError

NUM_PROMPTS = 3
NUM_BINS = 12
HEAVY_TAIL = 8
"""Bins double in width where the largest value is more than this many times the median."""

MOST_LATER = 10
"""Later targets of a train session that are looked for."""

_DAY = 86400


@dataclass(frozen=True, eq=False)
class Inspection:
    """A data set in numbers, and the values that its charts are drawn from."""

    numbers: dict[str, Any]
    """Everything that is shown, as values that JSON can hold."""
    lengths: dict[str, np.ndarray]
    """The values of each name in `numbers["lengths"]`, int64 (n,), in no particular order."""
    target_times: dict[str, np.ndarray]
    """float64 (n,): the known times of each split's targets, in seconds since 1970."""


def inspect_dataset(
    folder: str | Path, *, split: str = "train", num_prompts: int | None = None, seed: int = 0
) -> Inspection:
    """Count what is in the data set in `folder`, and render `num_prompts` prompts of `split`, drawn with `seed`.

    Without `num_prompts` there are three prompts, or as many as the split has sessions. Only the texts of prompts are
    loaded. Raises `DataError` as `load` does, for a split without sessions, and for a split with fewer sessions than
    `num_prompts`.
    """
    folder = Path(folder)
    data = load(folder)
    prompts = _prompts(data, folder, split, num_prompts, seed)
    items, sessions = scan_parquet(folder / ITEMS), scan_parquet(folder / SESSIONS)
    table = sessions.select(leakage.COLUMNS).collect()
    lengths = _lengths(data, items, sessions)
    numbers = {
        "source": data.info["source"]["name"],
        "config": data.info["config"],
        "items": len(data.catalog),
        "sessions": _sessions(table),
        "filters": _filters(data.info.get("filters", [])),
        "removed": data.info.get("removed", {}),
        "missing": _missing(items, sessions),
        "lengths": {name: summary(values) for name, values in lengths.items()},
        "ratings": _ratings(sessions),
        "leakage": leakage.report(table, len(data.catalog)),
        "prompts": prompts,
    }
    known = table.filter(pl.col("target_timestamp").is_not_null())
    times = {name: known.filter(split=name)["target_timestamp"].to_numpy() for name in SPLITS}
    return Inspection(numbers, lengths, times)


def bin_edges(values: np.ndarray, num_bins: int = NUM_BINS) -> np.ndarray:
    """Edges of bins for whole numbers, int64, ascending. Bin i holds edges[i] <= value < edges[i + 1].

    A small range of values gets one bin for each value. Values with a heavy tail get bins that double in width. Other
    values get about `num_bins` bins of one round width.
    """
    low, high = int(values.min()), int(values.max())
    if high - low < num_bins:
        return np.arange(low, high + 2)
    if is_heavy_tailed(values):
        powers = 2 ** np.arange(high.bit_length() + 1)
        return np.concatenate([[low], powers[powers > low]])
    width = _round_up((high - low + 1) / num_bins)
    start = low // width * width
    return start + width * np.arange((high - start) // width + 2)


def is_heavy_tailed(values: np.ndarray) -> bool:
    """Whether the largest value is far from the median, so that a linear scale would show little."""
    return bool(values.max() > HEAVY_TAIL * max(1.0, float(np.median(values))))


def summary(values: np.ndarray) -> dict[str, Any]:
    """Count, smallest, mean, quantiles and largest of whole numbers (n,), and their histogram by `bin_edges`."""
    edges = bin_edges(values)
    median, high = np.quantile(values, [0.5, 0.95])
    return {
        "count": len(values),
        "min": int(values.min()),
        "median": float(median),
        "mean": float(values.mean()),
        "p95": float(high),
        "max": int(values.max()),
        "histogram": {"edges": edges.tolist(), "counts": bin_counts(values, edges).tolist()},
    }


def bin_counts(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The number of values in each bin, int64 (len(edges) - 1,)."""
    return np.bincount(np.searchsorted(edges, values, side="right") - 1, minlength=len(edges) - 1)


def _round_up(width: float) -> int:
    """The smallest 1, 2 or 5 times a power of ten that is at least `width`."""
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power >= width:
                return factor * power
        power *= 10


def _sessions(table: pl.DataFrame) -> dict[str, dict[str, Any]]:
    """For each split and for all: sessions, users, items in windows, and the days of the first and last target."""
    return {"all": _split(table)} | {split: _split(table.filter(split=split)) for split in SPLITS}


def _split(table: pl.DataFrame) -> dict[str, Any]:
    items = pl.concat([table["history"].explode(), table["target"]])
    times = pl.col("target_timestamp")
    first, last = table.select(times.min(), times.max().alias("last")).row(0)
    return {
        "sessions": table.height,
        "users": table["user_id"].n_unique(),
        "items": items.n_unique(),
        "targets": table["target"].n_unique(),
        "first_target": _day(first),
        "last_target": _day(last),
    }


def _day(seconds: float | None) -> str | None:
    return None if seconds is None else str(np.datetime64(int(seconds // _DAY), "D"))


def _filters(steps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps of `dataset.toml`, each with what it removed."""
    return [
        step | {f"removed_{name}": before[name] - step[name] for name in step if name in before and name != "step"}
        for before, step in zip([{}, *steps], steps, strict=False)
    ]


def _missing(items: pl.LazyFrame, sessions: pl.LazyFrame) -> dict[str, dict[str, float]]:
    """The share of items, of interactions in histories, and of targets in which each field is null or empty."""
    history = sessions.select("ratings", "reviews").explode("ratings", "reviews")
    return {
        "items": _shares(items, {name: name for name in ITEM_FIELDS if name != "item_id"}),
        "history": _shares(history, {"rating": "ratings", "review": "reviews"}),
        "targets": _shares(sessions, {"timestamp": "target_timestamp"}),
    }


def _shares(table: pl.LazyFrame, columns: dict[str, str]) -> dict[str, float]:
    schema = table.collect_schema()
    missing = {name: _is_missing(column, schema[column]).mean() for name, column in columns.items()}
    return table.select(**missing).collect().row(0, named=True)


def _is_missing(column: str, dtype: pl.DataType) -> pl.Expr:
    value = pl.col(column)
    if dtype == pl.String:
        return value.fill_null("") == ""
    if isinstance(dtype, pl.List):
        return value.list.len().fill_null(0) == 0
    return value.is_null()


def _lengths(data: Dataset, items: pl.LazyFrame, sessions: pl.LazyFrame) -> dict[str, np.ndarray]:
    """The known values of each length, in the order in which they are shown. Lengths never measured are left out."""
    histories = data.sessions.histories
    users = sessions.group_by("user_id").len("sessions").collect()["sessions"].to_numpy()
    per_item = np.bincount(np.concatenate([histories.ravel(), data.sessions.targets]))
    characters = _values(items.select(pl.col("text").str.len_chars()))
    in_reviews = pl.col("reviews").list.eval(pl.element().str.len_chars().fill_null(0))
    values = {
        "interactions_per_user": users.astype(np.int64) * (histories.shape[1] + 1),
        "interactions_per_item": per_item[per_item > 0],
        "item_characters": characters,
        "item_tokens": _values(items.select("num_tokens")),
        "review_characters": _values(sessions.select(in_reviews.explode()).filter(pl.col("reviews") > 0)),
        "history_characters": characters[histories].sum(axis=1) + _values(sessions.select(in_reviews.list.sum())),
        "history_tokens": _values(sessions.select("num_tokens")),
        "later_targets": _num_later_targets(data),
    }
    return {name: known for name, known in values.items() if len(known)}


def _num_later_targets(data: Dataset) -> np.ndarray:
    """How many later targets `data.num_targets` can give each train session, at most `MOST_LATER`; int64 (n,)."""
    train = data.sessions.select("train")
    return np.array([len(targets) - 1 for targets in later_targets(data.sessions, train, 1 + MOST_LATER)])


def _values(column: pl.LazyFrame) -> np.ndarray:
    """The values of a table's only column that are not null, int64 (n,)."""
    return column.collect().to_series().drop_nulls().cast(pl.Int64).to_numpy()


def _ratings(sessions: pl.LazyFrame) -> list[dict[str, Any]]:
    """The number of times that each rating occurs in histories. Ratings are rounded down to half a point."""
    half_points = (pl.col("ratings").explode() * 2).floor() / 2
    rows = sessions.select(rating=half_points).drop_nulls().group_by("rating").len("count").sort("rating")
    return rows.collect().to_dicts()


def _prompts(data: Dataset, folder: Path, split: str, wanted: int | None, seed: int) -> list[dict[str, Any]]:
    """Prompts of some sessions of `split`, each with its target."""
    sessions = data.sessions.select(split)
    if wanted is not None and wanted > len(sessions):
        raise DataError(
            f"{wanted} prompts were asked for, but the split {split!r} of {folder} has {len(sessions)} sessions. "
            "Ask for fewer with --prompts, or for another --split."
        )
    drawn = sessions.sample(NUM_PROMPTS if wanted is None else wanted, seed)
    num_tokens = _history_tokens(folder, drawn.session_ids)
    return [
        {
            "session_id": session_id,
            "user_id": drawn.user_ids[i],
            "target": data.catalog.item_ids[target],
            "target_title": data.catalog.titles[target],
            "history_tokens": num_tokens[session_id],
            "prompt": data.prompt(drawn, i),
        }
        for i, (session_id, target) in enumerate(zip(drawn.session_ids.tolist(), drawn.targets.tolist(), strict=True))
    ]


def _history_tokens(folder: Path, session_ids: np.ndarray) -> dict[int, int | None]:
    """Session -> the tokens of its history, or None where they were not counted."""
    sessions = scan_parquet(folder / SESSIONS)
    wanted = pl.Series("session_id", session_ids).implode()
    rows = sessions.filter(pl.col("session_id").is_in(wanted)).select("session_id", "num_tokens").collect()
    return dict(rows.iter_rows())
