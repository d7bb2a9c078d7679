"""A real browser for the tests of the page: Debian's chromium, or another one that is there, driven by playwright."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => window.violations.push(event.violatedDirective));
"""
SECONDS = 20
"""How long something on the page may take. Much less is usual; machines that do other work meanwhile are slow."""


def path_of_chromium() -> str:
    """The browser's program. Without one the test is skipped, but where `CI` is set that is a failure."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found:
        return found
    why = "there is no chromium on this machine (Debian: apt-get install chromium)"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


@contextmanager
def started_browser() -> Iterator[Browser]:
    """A browser without a window. It opens this server alone, and has no sandbox, so that root may start it too."""
    path = path_of_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield browser
        browser.close()


class Tab:
    """A tab of the browser with the page of a server.

    Whatever the browser complains about is kept. Answers with a status in `expected` are no fault.
    """

    def __init__(self, page: Page, url: str):
        self.page, self.url = page, url
        self.expected: set[int] = set()
        self._complaints: list[str] = []
        page.set_default_timeout(SECONDS * 1000)
        page.add_init_script(WATCH)
        page.on("console", lambda message: self._complain(message.type, message.text))
        page.on("pageerror", lambda error: self._complaints.append(f"{error}\n{error.stack}"))

    def _complain(self, kind: str, text: str) -> None:
        status = re.search(r"server responded with a status of (\d+)", text)
        if kind in ("error", "warning") and not (status and int(status[1]) in self.expected):
            self._complaints.append(f"{kind}: {text}")

    def check(self) -> None:
        """Fail where the browser has complained."""
        assert self._complaints == []
        assert self.page.evaluate("window.violations") == []

    def open(self, fragment: str = "") -> Tab:
        """Load the page at a fragment of its address."""
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/{fragment}")
        self.page.wait_for_selector("html[data-ready]")
        return self

    def open_user(self, user: str) -> Tab:
        """Open a user by the field for it, without the list of suggestions."""
        self.page.fill("#user-field", user)
        self.page.press("#user-field", "Enter")
        self.wait_for(f"document.title.startsWith('User {user} ')")
        return self.settled()

    def settled(self) -> Tab:
        """Wait until the ranking is that of what stands in the editor."""
        return self.wait_for("document.getElementById('ranking').getAttribute('aria-busy') !== 'true'")

    def wait_for(self, expression: str) -> Tab:
        """Wait until an expression of the page is true. Playwright's own way needs `eval`, which the page forbids."""
        deadline = time.monotonic() + SECONDS
        while not self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"{expression} has not become true"
            time.sleep(0.02)
        return self

    def wait_for_text(self, selector: str, text: str) -> Tab:
        """Wait until an element's text holds another one."""
        return self.wait_for(f"document.querySelector({json.dumps(selector)}).textContent.includes({json.dumps(text)})")

    def wait_for_number(self, selector: str, number: int) -> Tab:
        """Wait until so many elements fit."""
        return self.wait_for(f"document.querySelectorAll({json.dumps(selector)}).length === {number}")

    def text(self, selector: str) -> str:
        """What is written in an element."""
        return self.page.locator(selector).inner_text()

    def texts(self, selector: str) -> list[str]:
        """What is written in all elements that fit."""
        return self.page.locator(selector).all_inner_texts()

    def sentences(self) -> list[str]:
        """The profile as its sentences are shown."""
        return [field.input_value() for field in self.page.locator(".sentence textarea").all()]

    def sentence(self, number: int) -> Any:
        """The field of a sentence, counted from 1."""
        return self.page.locator(".sentence textarea").nth(number - 1)

    def press_beside(self, number: int, name: str) -> Tab:
        """Press one of the buttons beside a sentence, whose name begins like this."""
        self.page.locator(".sentence").nth(number - 1).get_by_role("button", name=name).click()
        return self.settled()

    def add(self, sentence: str) -> Tab:
        """Add a sentence at the end."""
        self.page.fill("#add-field", sentence)
        self.page.press("#add-field", "Enter")
        return self.settled()

    def ranking(self) -> list[tuple[str, int]]:
        """(id, rank) of the items that are shown."""
        rows = self.page.locator("#ranking > li").all()
        return [(row.get_attribute("data-id"), int(row.locator(".rank").inner_text())) for row in rows]

    def moves(self) -> dict[str, str]:
        """Id -> arrow and former rank, of the items that are shown and moved."""
        rows = self.page.locator("#ranking > li").all()
        found = {row.get_attribute("data-id"): row.locator(".move [aria-hidden]").all_inner_texts() for row in rows}
        return {item: " ".join(texts) for item, texts in found.items() if texts}

    def focused(self) -> str:
        """What has the focus: its id, or its name for a screen reader, or its text."""
        return self.page.evaluate(
            "(({id, ariaLabel, textContent}) => id || ariaLabel || textContent)(document.activeElement)"
        )

    def check_accessibility(self) -> None:
        """Fail where axe finds a fault, by any of its rules."""
        found = Axe().run(self.page)
        assert found.violations_count == 0, found.generate_report()
