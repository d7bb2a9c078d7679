"""An inspection for the terminal: tables, histograms and prompts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from langptune_rs.data.preparing.leakage import HELD_OUT
from langptune_rs.data.store.sessions import SPLITS

WIDTH = 80
"""Columns that the widest table needs, and that the bars fill."""

LENGTH_LABELS = {
    "interactions_per_user": "interactions in sessions, per user",
    "interactions_per_item": "interactions in sessions, per item",
    "item_characters": "item text, characters",
    "item_tokens": "item text, embedder tokens",
    "review_characters": "reviews, characters",
    "history_characters": "history, characters",
    "history_tokens": "history, policy tokens",
    "later_targets": "later targets of a train session, up to 10",
}

_LEAK_LABELS = {
    "{}_sessions": "sessions",
    "{}_targets_in_train_histories_of_same_user": "  target in a train history, same user",
    "{}_targets_as_train_targets_of_same_user": "  target of a train session, same user",
    "{}_targets_in_train_histories_of_any_user": "  target in a train history, any user",
    "{}_targets_never_in_train": "  target never in train",
    "{}_sessions_sharing_items_with_train_of_same_user": "  item shared with train, same user",
    "{}_windows_overlapping_train": "  window overlaps one of train",
    "{}_sessions_sharing_items_with_validation_of_same_user": "  item shared with validation, same user",
    "{}_windows_overlapping_validation": "  window overlaps one of validation",
    "{}_users": "users",
    "{}_users_in_train": "  also in train",
    "train_targets_after_first_{}_target": "train targets later than the first",
    "train_targets_after_median_{}_target": "train targets later than the median",
}
"""Each row of the leakage table by the key of its number, with the split to fill in."""

_BAR = " ▏▎▍▌▋▊▉█"


def print_inspection(numbers: dict[str, Any], name: str, console: Console | None = None) -> None:
    """Print `Inspection.numbers` of the data set `name`. Nothing is cut, and only prompts are wider than `WIDTH`."""
    console = console or Console(highlight=False)
    console.width = WIDTH
    config = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in numbers["config"].items())
    console.print(Text(name, style="bold"), Text(f"source {numbers['source']}; {config}"), "", sep="\n")
    tables = [
        _sessions_table(numbers),
        _filters_table(numbers["filters"]),
        _missing_table(numbers["missing"]),
        _lengths_table(numbers["lengths"]),
        _leakage_table(numbers["leakage"], numbers["items"]),
    ]
    for table in tables[:2]:
        console.print(table, "")
    _print_removed(console, numbers["removed"])
    for table in tables[2:4]:
        console.print(table, "")
    for key, length in numbers["lengths"].items():
        labels = [bin_label(*pair) for pair in pairwise(length["histogram"]["edges"])]
        _print_bars(console, LENGTH_LABELS[key], labels, length["histogram"]["counts"])
    if numbers["ratings"]:
        labels = [f"{row['rating']:g}" for row in numbers["ratings"]]
        _print_bars(console, "ratings in histories", labels, [row["count"] for row in numbers["ratings"]])
    console.print(tables[4], "")
    for i, prompt in enumerate(numbers["prompts"], start=1):
        _print_prompt(console, prompt, f"Prompt {i} of {len(numbers['prompts'])}")


def bin_label(start: int, end: int) -> str:
    """The whole numbers of a bin from `start` up to but not including `end`."""
    return f"{start:,}" if end - start == 1 else f"{start:,}–{end - 1:,}"


def bar(share: float, width: int) -> str:
    """A bar that fills `share` of `width` columns, to an eighth of a column. A share above 0 is never invisible."""
    eighths = round(8 * width * share) or (share > 0)
    return (_BAR[8] * (eighths // 8) + _BAR[eighths % 8]).rstrip()


def _table(title: str, first: str, *columns: str) -> Table:
    """A table whose first column is text and whose others are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, show_edge=False)
    table.add_column(first)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _sessions_table(numbers: dict[str, Any]) -> Table:
    table = _table(
        f"Sessions over {numbers['items']:,} items", "split", "sessions", "users", "items", "targets", "first", "last"
    )
    for split in (*SPLITS, "all"):
        row = numbers["sessions"][split]
        counts = (f"{row[key]:,}" for key in ("sessions", "users", "items", "targets"))
        table.add_row(split, *counts, row["first_target"] or "–", row["last_target"] or "–")
    table.caption = "items: in histories or targets; first, last: days of targets"
    table.caption_justify = "left"
    return table


def _filters_table(steps: Sequence[dict[str, Any]]) -> Table:
    table = _table("Filters: what each left, and removed", "step", "users", "items", "interactions", "removed", "share")
    for step in steps:
        removed = step.get("removed_interactions")
        before = step["interactions"] + (removed or 0)
        gone = ("–", "–") if removed is None else (f"{removed:,}", _percent(removed, before))
        table.add_row(Text(str(step["step"])), *(f"{step[key]:,}" for key in ("users", "items", "interactions")), *gone)
    return table


def _print_removed(console: Console, removed: dict[str, Any]) -> None:
    """Print the numbers of removed things in `dataset.toml` that are not 0."""
    lines = [f"{number:,} {name.replace('_', ' ')}" for name, number in removed.items() if number]
    if lines:
        console.print(Text("\n".join(lines)), "", sep="\n")


def _missing_table(missing: dict[str, dict[str, float]]) -> Table:
    table = _table("Missing fields", "", "share")
    for rows, fields in missing.items():
        for field, share in fields.items():
            table.add_row(f"{rows}, {field.replace('_', ' ')}", f"{share:.1%}")
    return table


def _lengths_table(lengths: dict[str, dict[str, Any]]) -> Table:
    table = _table("Lengths", "", "min", "median", "mean", "95%", "max")
    for key, length in lengths.items():
        numbers = (f"{length[name]:,.{digits}f}" for name, digits in _COLUMNS.items())
        table.add_row(LENGTH_LABELS[key], *numbers)
    return table


_COLUMNS = {"min": 0, "median": 0, "mean": 1, "p95": 0, "max": 0}
"""Column of the table of lengths -> the decimals that it shows."""


def _leakage_table(leaks: dict[str, int], num_items: int) -> Table:
    table = _table("Leakage: what training knows of the other splits", "", "validation", "", "test", "")
    for pattern, label in _LEAK_LABELS.items():
        if any(pattern.format(split) in leaks for split in HELD_OUT):
            table.add_row(label, *(cell for split in HELD_OUT for cell in _leak_cells(leaks, pattern, split)))
    never = leaks["items_never_in_train"]
    table.caption = f"items of the catalog never in train: {never:,} ({_percent(never, num_items)})"
    table.caption_justify = "left"
    return table


def _leak_cells(leaks: dict[str, int], pattern: str, split: str) -> tuple[str, str]:
    """A number, and its share of the sessions, users or train targets that it counts."""
    if pattern.format(split) not in leaks:
        return "", ""
    number = leaks[pattern.format(split)]
    if pattern in ("{}_sessions", "{}_users"):
        return f"{number:,}", ""
    total = "train_sessions" if pattern.startswith("train_") else f"{split}_users" if "users" in pattern else None
    return f"{number:,}", _percent(number, leaks[total or f"{split}_sessions"])


def _percent(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "–"


def _print_bars(console: Console, title: str, labels: Sequence[str], counts: Sequence[int]) -> None:
    """Print a line with a bar for each count. The longest bar ends at the end of the line."""
    label_width = max(map(len, labels))
    numbers = [f"{count:,}" for count in counts]
    number_width = max(map(len, numbers))
    room = WIDTH - label_width - number_width - 4
    console.print(Text(title, style="bold"))
    for label, number, count in zip(labels, numbers, counts, strict=True):
        line = Text(f"{label:>{label_width}}  {number:>{number_width}}  ")
        console.print(line.append(bar(count / max(counts), room), style="cyan"))
    console.print()


def _print_prompt(console: Console, prompt: dict[str, Any], title: str) -> None:
    tokens = prompt["history_tokens"]
    counted = "" if tokens is None else f", history of {tokens:,} tokens"
    console.print(
        Text(f"{title}: session {prompt['session_id']}, user {prompt['user_id']}{counted}", style="bold"),
        Text(f"The user chose next: {prompt['target_title']} [{prompt['target']}]"),
        "",
        Text(prompt["prompt"]),
        "",
        sep="\n",
        soft_wrap=True,
    )
