"""A profile in a file that a person edits: its text now, and again whenever it is saved."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from langptune_rs.errors import InputError
from langptune_rs.files import write_text
from langptune_rs.recommending.edits import Rewrite
from langptune_rs.recommending.recommender import check_request
from langptune_rs.serving.service import ProfileService
from langptune_rs.serving.tables import items_json, print_items, print_steering, steering_json

POLL_SECONDS = 0.05
"""How often the file is looked at."""


def saved_texts(file: Path) -> Iterator[str]:
    """The text of a file, and its text after each save that changes it, for ever.

    A file that is replaced is followed, as most editors save. A text comes once the file has been left alone between
    two looks, and none while the file is gone or empty.
    Raises `InputError` for a file that is not UTF-8.
    """
    last_text, last_seen = "", None
    while True:
        seen = _signature(file)
        if seen is not None and seen == last_seen:
            text = _text(file)
            if text and text != last_text:
                yield text
                last_text = text
        last_seen = seen
        time.sleep(POLL_SECONDS)


def _signature(file: Path) -> tuple[int, int, int] | None:
    """What changes when a file is saved; None where there is none."""
    try:
        stat = file.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text ({error.reason}, byte {error.start}): save it as UTF-8") from error


def watch_profile(
    service: ProfileService, file: Path, user: str | None, profile: str | None, k: int, *, as_json: bool = False
) -> None:
    """Print the k items nearest to the profile in a file, and after each save how the edit moved them.

    Where the file does not exist, it begins as the user's profile or the one given. As JSON, each ranking is a line.
    Ends when the process is interrupted.

    Raises `InputError` where there is no file to begin with, no folder for it, or nothing to rank by in it.
    """
    if not file.parent.is_dir():
        raise InputError(f"{file} cannot be watched: there is no folder {file.parent}. Make it first")
    if file.is_dir():
        raise InputError(f"{file} is a folder and cannot be watched: name a file, in it or elsewhere")
    history = [] if user is None else service.history_of(user)[0]
    if not file.exists():
        if user is None and profile is None:
            raise InputError(
                f"there is no file {file} to watch: write a profile into it, or let --user or --profile begin it"
            )
        text = service.text_and_history(user, profile)[0]
        check_request(text, k, history, len(service.catalog))
        write_text(file, text + "\n")
    elif not _text(file):
        print(f"{file} is empty. Write a profile into it and save it.", file=sys.stderr, flush=True)
    with suppress(KeyboardInterrupt):
        _print_rankings(service, file, history, k, as_json)


def _print_rankings(service: ProfileService, file: Path, history: Sequence[int], k: int, as_json: bool) -> None:
    before: str | None = None
    for text in saved_texts(file):
        if before is None:
            items, unread = service.recommend(text, k, exclude=history), service.unread(text)
            print_items(items, unread) if not as_json else _print_line(items_json(text, items, unread))
        else:
            found = service.steer(before, Rewrite(text), exclude=history)
            if as_json:
                _print_line(steering_json(service.catalog, found, k))
            else:
                print_steering(service.catalog, found, k)
        before = text


def _print_line(value: object) -> None:
    print(json.dumps(value), flush=True)
