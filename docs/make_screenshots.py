"""Takes the README's screenshots from a real run in a real browser.

uv run python docs/make_screenshots.py
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parent / "images"
sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.app.server import App  # noqa: E402
from tests.conftest import CHROMIUM_FLAGS  # noqa: E402


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        app = App(Path(folder) / "runs")
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=CHROMIUM_FLAGS
        )
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.goto(app.link)
            live_page(page)
            vanishing_page(page)
        finally:
            browser.close()
            app.close()


def live_page(page: Any) -> None:
    """The default run after somebody turned the learning rate up and back."""
    start(page)
    page.wait_for_timeout(8000)
    for rate in ("0.5", "0.05"):
        box = page.get_by_label("Learning rate, exactly")
        box.fill(rate)
        box.press("Enter")
        page.wait_for_timeout(5000)
    page.screenshot(path=IMAGES / "live.png")
    stop(page)


def vanishing_page(page: Any) -> None:
    """The gradient heat map of the deep sigmoid network."""
    page.get_by_role("link", name="Start", exact=True).first.click()
    page.locator(".st-key-card-vanishing button").first.click()
    page.get_by_role("heading", name="Deep sigmoid net on handwritten digits").wait_for()
    start(page)
    page.wait_for_timeout(6000)
    page.get_by_role("link", name="Gradients", exact=True).first.click()
    page.locator(".card canvas").first.wait_for()
    page.wait_for_timeout(4000)
    page.screenshot(path=IMAGES / "gradients.png")
    stop(page)


def start(page: Any) -> None:
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/live**")
    page.locator(".strip .badge:has-text('Running')").wait_for()


def stop(page: Any) -> None:
    page.get_by_role("button", name="Stop").click()
    page.locator(".strip .badge:has-text('Stopped')").wait_for()


if __name__ == "__main__":
    main()
