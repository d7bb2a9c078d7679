"""A summary of what the preparation of a data set did, as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def summary_text(info: dict[str, Any], out: Path) -> str:
    """Counts after each step, what was removed, sessions in each split, and the leakage report, one thing a line.

    `info` is the content of `dataset.toml`, and `out` the folder of the data set.
    """
    lines = _published_lines(info["published"]) if "published" in info else _filter_lines(info)
    lines += [
        "",
        "sessions: " + ", ".join(f"{number} {split}" for split, number in info["sessions"].items()),
        "",
        "leakage report",
        *(f"  {name.replace('_', ' ')}: {number}" for name, number in info["leakage"].items()),
        "",
        f"Written to {out}",
    ]
    return "\n".join(lines)


def _published_lines(report: dict[str, int]) -> list[str]:
    """What was published, and what was left out."""
    return [f"published {name.replace('_', ' ')}: {number}" for name, number in report.items()]


def _filter_lines(info: dict[str, Any]) -> list[str]:
    """What each step left, and what it removed."""
    rows = [("step", "users", "items", "interactions"), *(tuple(step.values()) for step in info["filters"])]
    width = max(len(row[0]) for row in rows)
    return [
        *(f"{row[0]:<{width}}" + "".join(f"{number:>14}" for number in row[1:]) for row in rows),
        "",
        *_removed_lines(info["removed"], info["config"]),
    ]


def _removed_lines(removed: dict[str, int], config: dict[str, Any]) -> list[str]:
    """What was removed or kept, in words. Things that most sources do not have are listed only if they occurred."""
    few = f"with fewer than {config['min_interactions']} interactions"
    always = [
        f"removed {removed['users_with_too_few_interactions']} users {few}",
        f"removed {removed['items_with_too_few_interactions']} items {few}",
        f"removed {removed['items_without_text']} items without a title, description or category",
    ]
    sometimes = {
        "items_too_long": f"items of more than {config.get('max_item_tokens')} tokens",
        "sessions_too_long": f"sessions with a history of more than {config.get('max_history_tokens')} tokens",
        "interactions_with_undescribed_items": "interactions with items that have no metadata",
        "items_without_interactions": "items without any interaction",
        "reviews_that_cannot_be_used": "reviews that cannot be used, whose interactions stay",
        "repeated_descriptions": "further descriptions of items that were described before",
        "duplicate_interactions": "interactions that are there twice, at the same time",
        "bad_lines": "lines that cannot be used; dataset.toml lists the first of them",
    }
    return [
        *always,
        *(f"removed {removed[name]} {what}" for name, what in sometimes.items() if removed[name]),
        f"kept {removed['repeated_interactions_kept']} interactions that repeat an item of their user; no session does",
    ]
