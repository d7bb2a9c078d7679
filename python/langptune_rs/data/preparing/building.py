"""The steps from raw logs to items and sessions (section 4.1): filter, cut, measure and split, with counts of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from langptune_rs.config.data import DataConfig
from langptune_rs.data.preparing import filters, leakage, splits
from langptune_rs.data.preparing.passes import Keys, read_items, read_keys, read_reviews
from langptune_rs.data.preparing.tokens import TokenCounters
from langptune_rs.data.preparing.windows import cut_sessions
from langptune_rs.data.readers.bad_lines import BadLines
from langptune_rs.data.sources.files import RawLogs
from langptune_rs.data.sources.published import Published
from langptune_rs.data.store.schema import ITEM_FIELDS
from langptune_rs.data.store.sessions import SPLITS
from langptune_rs.data.wording.templates import Item, Template


@dataclass(frozen=True)
class Built:
    """What a data set holds."""

    items: pl.DataFrame
    sessions: pl.DataFrame
    report: dict[str, Any]
    """Counts and the leakage report, for `dataset.toml`."""


def build(logs: RawLogs, config: DataConfig, template: Template, counters: TokenCounters | None) -> Built:
    """Items and sessions from raw logs.

    `counters` are needed for the limits in tokens of `config`. Raises `DataError` for a step that leaves nothing, and
    for rows that cannot be used unless `config.on_bad_line` skips them.
    """
    work = _Work(logs, config, template, counters)
    log = work.core(work.read())
    items = work.read_items(log)
    log, items = work.within_length(log, items)
    log = filters.in_order(_users_in_order(log, work.keys))
    sessions = splits.assign(work.cut(log, items), config.split_rule, config.seed, config.held_out)
    sessions = sessions.with_columns(session_id=pl.int_range(pl.len()))
    return Built(items, sessions, work.report(log, items, sessions))


def build_published(published: Published, template: Template, counters: TokenCounters | None) -> Built:
    """Items and sessions of the published split. It is filtered and divided already, and only lengths are counted."""
    items = _with_texts(published.items, template, counters)
    num_tokens = _history_tokens(published.sessions, items, template, counters)
    sessions = published.sessions.with_columns(num_tokens)
    report = {
        "sessions": _num_sessions(sessions),
        "published": published.report,
        "leakage": leakage.report(sessions, items.height),
    }
    return Built(items, sessions, report)


class _Work:
    """Makes one data set, and counts what each step left and removed.

    A log is a table as `read_keys` returns it. The steps pass logs on and keep none, since each is hundreds of
    megabytes at the size of Amazon.
    """

    def __init__(self, logs: RawLogs, config: DataConfig, template: Template, counters: TokenCounters | None) -> None:
        self.logs, self.config, self.template, self.counters = logs, config, template, counters
        self.bad, self.bad_reviews = BadLines(config.on_bad_line), BadLines(config.on_bad_line)
        self.steps = filters.Steps()
        self.removed: dict[str, int] = {}

    def read(self) -> pl.DataFrame:
        """The log of all interactions."""
        self.keys, log = read_keys(self.logs, self.bad, self.config.scale)
        return self.steps.count("source", log)

    def core(self, log: pl.DataFrame) -> pl.DataFrame:
        """The k-core of the interactions with items that have a text, each interaction once."""
        num_read = log.height
        log = self.steps.count("described items", log.filter(pl.col("item").is_not_null()), optional=True)
        num_described = log.height
        log = self.steps.count("items with text", log.filter(self.keys.items["has_text"].gather(log["item"])))
        num_with_text, num_items = log.height, filters.num_distinct(log["item"])
        log = self.steps.count("without duplicates", filters.without_duplicates(log), optional=True)
        self.removed["interactions_with_undescribed_items"] = num_read - num_described
        self.removed["duplicate_interactions"] = num_with_text - log.height
        self.removed["items_without_interactions"] = int(self.keys.items["has_text"].sum()) - num_items
        return self._k_core(log)

    def read_items(self, log: pl.DataFrame) -> pl.DataFrame:
        """The items of `log` in the order of the source: the columns of `items.parquet`, and the number `item`."""
        kept = self.keys.items.with_row_index("item").filter(_is_in("item", log["item"].unique()))
        items = read_items(self.logs, kept["line"], self.bad, self.config.scale)
        items = items.join(kept.select("item", "line"), on="line", maintain_order="left")
        return _with_texts(items, self.template, self.counters)

    def within_length(self, log: pl.DataFrame, items: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The k-core of the interactions with items that are not too long, and its items."""
        short = items
        if self.config.max_item_tokens is not None:
            short = items.filter(pl.col("num_tokens") <= self.config.max_item_tokens)
            log = self.steps.count("items within length", log.filter(_is_in("item", short["item"])), optional=True)
            log = self._k_core(log, " again")
        self.removed["items_too_long"] = items.height - short.height
        return log, short.filter(_is_in("item", log["item"].unique()))

    def cut(self, log: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
        """The sessions of a sorted log, without those whose history is too long."""
        users, places = log["user"].to_numpy(), log["item"].to_numpy()
        windows = cut_sessions(users, places, self.config.window_rule, self.config.history_length)
        self.steps.count("sessions", log[windows.ravel()])
        sessions = self._read_sessions(log, windows)
        sessions = sessions.with_columns(_history_tokens(sessions, items, self.template, self.counters))
        self.removed["sessions_too_long"] = 0
        if self.config.max_history_tokens is not None:
            short = sessions["num_tokens"] <= self.config.max_history_tokens
            self.steps.count("histories within length", log[windows[short.to_numpy()].ravel()], optional=True)
            self.removed["sessions_too_long"] = int((~short).sum())
            sessions = sessions.filter(short)
        return sessions

    def report(self, log: pl.DataFrame, items: pl.DataFrame, sessions: pl.DataFrame) -> dict[str, Any]:
        """Counts and the leakage report, for `dataset.toml`."""
        num_with_text = int(self.keys.items["has_text"].sum())
        num_users = filters.num_distinct(log["user"])
        return {
            "kept": {"users": num_users, "items": items.height, "interactions": log.height},
            "sessions": _num_sessions(sessions),
            "filters": self.steps.counts,
            "removed": {
                "users_with_too_few_interactions": int(self.steps.counts[0]["users"]) - num_users,
                "items_with_too_few_interactions": num_with_text
                - self.removed["items_without_interactions"]
                - self.removed["items_too_long"]
                - items.height,
                "items_without_text": self.keys.items.height - num_with_text,
                **self.removed,
                "repeated_descriptions": self.keys.num_repeated_items,
                "repeated_interactions_kept": filters.num_repeats(log),
                "reviews_that_cannot_be_used": self.bad_reviews.num_rows,
                "bad_lines": self.bad.num_rows,
            },
            "bad_lines": [{"line": message} for message in self.bad.first + self.bad_reviews.first],
            "leakage": leakage.report(sessions, items.height),
        }

    def _k_core(self, log: pl.DataFrame, again: str = "") -> pl.DataFrame:
        k = self.config.min_interactions
        mask = filters.k_core(log["user"].to_numpy(), log["item"].to_numpy(), k)
        return self.steps.count(f"{k}-core{again}", log.filter(pl.Series(mask)), optional=bool(again))

    def _read_sessions(self, log: pl.DataFrame, windows: np.ndarray) -> pl.DataFrame:
        """One row per window: the columns of `sessions.parquet` without split and num_tokens, and `first_timestamp`."""
        history, target = log[windows[:, :-1].ravel()], log[windows[:, -1]]
        texts = read_reviews(self.logs, history["line"].to_numpy(), self.bad_reviews)
        reviews = history.join(texts, on="line", how="left", maintain_order="left")["review_text"]
        shape = (len(windows), windows.shape[1] - 1)
        ids = self.keys.items["item_id"]
        return pl.DataFrame(
            {
                "session_id": np.arange(len(windows)),
                "user_id": target["user_id"],
                "history": ids.gather(history["item"]).reshape(shape).arr.to_list(),
                "ratings": history["rating"].reshape(shape).arr.to_list(),
                "reviews": reviews.reshape(shape).arr.to_list(),
                "target": ids.gather(target["item"]),
                "target_timestamp": target["timestamp"],
                "first_timestamp": history["timestamp"].gather_every(shape[1]),
            }
        )


def _is_in(column: str, values: pl.Series) -> pl.Expr:
    return pl.col(column).is_in(values.implode())


def _num_sessions(sessions: pl.DataFrame) -> dict[str, int]:
    return {split: sessions.filter(split=split).height for split in SPLITS}


def _users_in_order(log: pl.DataFrame, keys: Keys) -> pl.DataFrame:
    """`log` with `user_id`, and with users numbered in the order of their ids, whatever the order of the file."""
    codes = log["user"].unique()
    ids = pl.DataFrame({"code": codes, "user_id": keys.users.texts(codes)}).sort("user_id").with_row_index("number")
    return log.rename({"user": "code"}).join(ids, on="code").rename({"number": "user"})


def _with_texts(items: pl.DataFrame, template: Template, counters: TokenCounters | None) -> pl.DataFrame:
    """`items` with `text`, `line` and `num_tokens`."""
    fields = [Item(*row) for row in items.select(list(ITEM_FIELDS)[1:]).iter_rows()]
    texts = [template.item_text(item) for item in fields]
    return items.with_columns(
        text=pl.Series(texts, dtype=pl.String),
        line=pl.Series([template.item_line(item) for item in fields], dtype=pl.String),
        num_tokens=pl.Series(counters.items(texts) if counters else [None] * len(texts), dtype=pl.UInt32),
    )


def _history_tokens(
    sessions: pl.DataFrame, items: pl.DataFrame, template: Template, counters: TokenCounters | None
) -> pl.Series:
    """`num_tokens`: the policy's tokens of each session's history, without an instruction."""
    if counters is None:
        return pl.Series("num_tokens", [None] * sessions.height, dtype=pl.UInt32)
    texts = dict(items.select("item_id", "text").iter_rows())
    histories = [
        "\n\n".join(map(template.history_entry, map(texts.__getitem__, history), ratings, reviews))
        for history, ratings, reviews in sessions.select("history", "ratings", "reviews").iter_rows()
    ]
    return pl.Series("num_tokens", counters.histories(histories), dtype=pl.UInt32)
