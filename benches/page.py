"""How soon the page is there, and how soon an edit's ranking is, in a real browser.

    python benches/page.py
    python benches/page.py --items 100000 --rounds 50

A server of `--items` synthetic items, with an untrained all-MiniLM-L6-v2, and a chromium without a window share the
machine. A profile of five sentences is edited `--rounds` times, each time to a text that was not embedded before. The
page itself takes the time of an edit, from the event of the key or the button to the frame that shows the new list, so
that the 50 ms for which it waits for another key are part of it. The motion of the items begins with that frame.
Opening the page is timed from the request, each time in a browser that has not seen it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright
from steering import profile, run_with_an_embedder

from langptune_rs.evaluation.tables import markdown_table

KINDS = ("western", "musical", "thriller", "fairy tale", "documentary", "road movie", "courtroom drama", "comedy")
PLACES = ("at sea", "in winter", "on a train", "in a small town", "after the war", "in the desert", "by night")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        run = run_with_an_embedder(folder, str(write_data(folder / "source", options.items)))
        with serving(run, folder / "log") as url, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            rows = [*opened(browser, url, options.rounds), *edited(browser, url, options.rounds)]
            browser.close()
    print(f"{options.items:,} items, all-minilm-l6-v2, milliseconds, {options.rounds} times each\n")
    head = ("work", "median", "95 of 100", "longest")
    print(markdown_table(head, [(name, *(f"{value:.0f}" for value in figures(took))) for name, took in rows]))


def chromium() -> str:
    """The browser's program."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        raise SystemExit("There is no chromium on this machine (Debian: apt-get install chromium).")
    return found


def figures(took: list[float]) -> tuple[float, float, float]:
    """Median, 95th percentile and longest time."""
    return float(np.median(took)), float(np.percentile(took, 95)), max(took)


def write_data(folder: Path, num_items: int) -> Path:
    """Raw data of synthetic items, each with an interaction, and of a few users."""
    folder.mkdir()
    items = [
        {
            "item_id": f"i{number}",
            "title": f"{KINDS[number % 8].capitalize()} {number} {PLACES[number % 7]}",
            "description": f"A {KINDS[number % 8]} {PLACES[number % 7]}, part {number // 56} of many, slow and loud.",
        }
        for number in range(num_items)
    ]
    chosen = [
        {"user_id": f"u{item % 50}", "item_id": f"i{item}", "rating": 1.0 + item % 5, "timestamp": item}
        for item in range(num_items)
    ]
    for name, rows in (("items", items), ("interactions", chosen)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@contextmanager
def serving(run: Path, log: Path, *options: str) -> Iterator[str]:
    """The address of a server of a run, once it is ready."""
    start = "from langptune_cli.app import main; main()"
    command = [sys.executable, "-c", start, "serve", str(run), "--port", "0", *options]
    with log.open("w") as out, subprocess.Popen(command, stderr=out) as process:
        try:
            while "Ready" not in (said := log.read_text()):
                if process.poll() is not None:
                    raise SystemExit(said)
                time.sleep(0.2)
            yield said.partition(" on ")[2].split()[0]
        finally:
            process.terminate()


def opened(browser: Browser, url: str, rounds: int) -> list[tuple[str, list[float]]]:
    """First paint, and when a user can be chosen; then the same with a user's ranking."""
    paints: list[float] = []
    ready: list[float] = []
    for _ in range(rounds):
        with page_of(browser) as page:
            page.goto(url)
            wait_for(page, "performance.getEntriesByName('langptune:ready').length")
            paints.append(number(page, "performance.getEntriesByName('first-contentful-paint')[0].startTime"))
            ready.append(number(page, "performance.getEntriesByName('langptune:ready')[0].startTime"))
    return [("first paint of the page", paints), ("until it takes what is typed", ready)]


def edited(browser: Browser, url: str, rounds: int) -> list[tuple[str, list[float]]]:
    """From a key or a button until the new list is shown."""
    with page_of(browser) as page:
        page.goto(f"{url}/#user=u7")
        page.wait_for_selector("#add-field")
        page.check("#view-text", force=True)
        page.fill("#text-field", profile(0))
        page.wait_for_selector("#ranking li")
        page.check("#view-sentences", force=True)
        page.click("#count-from-here")
        field = page.locator(".sentence textarea").nth(2)
        field.focus()
        wait_for(page, "document.querySelector('.sentence.looked')")
        typed = [timed(page, lambda: page.keyboard.press("x")) for _ in range(rounds)]
        button = page.locator(".sentence").nth(1).get_by_role("button", name="count more")
        less = page.locator(".sentence").nth(1).get_by_role("button", name="count less")
        pressed = []
        for turn in range(rounds):
            field.press("y")  # another text, of which no part is embedded
            time.sleep(0.5)
            pressed.append(timed(page, (button if turn % 2 else less).click))
    return [("a key in a sentence, until its ranking", typed), ("a sentence counts more, until its ranking", pressed)]


def timed(page: Page, edit: Callable[[], Any]) -> float:
    """Milliseconds that the page measures for an edit."""
    page.evaluate("performance.clearMeasures('langptune:ranking')")
    edit()
    wait_for(page, "performance.getEntriesByName('langptune:ranking').length")
    return number(page, "performance.getEntriesByName('langptune:ranking')[0].duration")


@contextmanager
def page_of(browser: Browser) -> Iterator[Page]:
    """A page of a browser that knows nothing yet."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        yield context.new_page()
    finally:
        context.close()


def number(page: Page, expression: str) -> float:
    """The value of an expression of the page."""
    return float(page.evaluate(expression))


def wait_for(page: Page, expression: str) -> None:
    """Wait until an expression is true, without the `eval` that the page forbids."""
    deadline = time.monotonic() + 60
    while not page.evaluate(f"Boolean({expression})"):
        if time.monotonic() > deadline:
            raise SystemExit(f"{expression} has not become true.")
        time.sleep(0.01)


if __name__ == "__main__":
    main()
