"""The pictures of the page that README and the docs show.

    python benches/page_pictures.py runs/quickstart

They show a user of MovieLens-100K, whose profile the policy wrote and a person went on with. The page takes the fonts
of the machine and asks for Inter and Charter first (Debian: `apt-get install chromium fonts-inter fonts-sil-charis`).
Edits go into a store of their own. A picture has 128 colours, which makes it small.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path

from page import chromium, serving, wait_for
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parents[1] / "docs" / "images"
USER = "829"
SENTENCES = ("Animated films that adults enjoy, too.", "Dark comedies.")
EDITED = "Old musicals and love stories."
NUM_COLOURS = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run of the quickstart")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        store = f"sqlite:///{Path(name) / 'edits.sqlite'}"
        with (
            serving(options.run, Path(name) / "log", "--store", store) as url,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
            light(browser, url)
            dark(browser, url)
            phone(browser, url)
            browser.close()


def light(browser: Browser, url: str) -> None:
    """An edited profile, and what has moved since it was saved."""
    page = browser.new_page(viewport={"width": 1280, "height": 960}, reduced_motion="reduce")
    page.goto(f"{url}/#user={USER}")
    page.fill("#name-field", "Ada")
    page.click("#write-first")
    page.wait_for_selector("#ranking li", timeout=120_000)
    for sentence in SENTENCES:
        page.fill("#add-field", sentence)
        page.press("#add-field", "Enter")
    settle(page)
    page.click("#save")
    wait_for(page, "document.getElementById('save-status').textContent")
    edit(page)
    picture(page, "page-light.png")


def dark(browser: Browser, url: str) -> None:
    """What a sentence does."""
    page = browser.new_page(viewport={"width": 1280, "height": 960}, color_scheme="dark", reduced_motion="reduce")
    page.goto(f"{url}/#user={USER}")
    page.wait_for_selector("#ranking li")
    edit(page)
    page.locator(".sentence").nth(1).hover()
    page.wait_for_selector(".sentence.looked")
    picture(page, "page-dark.png")


def phone(browser: Browser, url: str) -> None:
    """The profile and the ranking on a phone."""
    page = browser.new_page(
        viewport={"width": 360, "height": 780},
        device_scale_factor=2,
        is_mobile=True,
        has_touch=True,
        reduced_motion="reduce",
    )
    page.goto(f"{url}/#user={USER}")
    page.wait_for_selector("#ranking li")
    edit(page)
    for name, part in (("page-phone.png", ".profile"), ("page-phone-ranking.png", ".ranking")):
        page.evaluate(f"scrollTo(0, document.querySelector('{part}').getBoundingClientRect().top + scrollY - 12)")
        picture(page, name)


def edit(page: Page) -> None:
    """Let a sentence count more, and write the last one anew."""
    page.locator(".sentence").nth(1).get_by_role("button", name="count more").click()
    page.locator(".sentence textarea").last.fill(EDITED)
    settle(page)
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(2, 2)
    settle(page)


def settle(page: Page) -> None:
    """Wait until the ranking follows, and nothing moves any more."""
    time.sleep(0.5)
    wait_for(page, "document.getElementById('ranking').getAttribute('aria-busy') !== 'true'")


def picture(page: Page, name: str) -> None:
    """Take a picture of what is seen."""
    seen = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    seen.quantize(NUM_COLOURS, dither=Image.Dither.NONE).save(FOLDER / name, optimize=True)


if __name__ == "__main__":
    main()
