"""A person's hands and eyes in a browser tab, so that a busy machine misleads neither.

Streamlit redraws the page under the hand: a click that falls into a redraw is lost, a list is
filtered a moment after the key, a number is taken over a moment after Enter. So every act waits
until the page rests, is done, and is watched until its effect shows; it is done once more only when
the page rests without that effect. All waits are bounded and look again every tenth of a second:
the app's security policy forbids Playwright's ``wait_for_function``.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Browser, Locator, Page, Request
from playwright.sync_api import Error as NotNow
from playwright.sync_api import TimeoutError as NotInTime

from tests.app.server import App

PATIENCE = 60.0  # seconds that anything may take on a busy two-core machine
LOST = 4.0  # seconds after which an act that left no trace on a resting page was lost
AT_ONCE = 5_000  # milliseconds for what is there already to hold still
ROW = 35  # pixels of a row of Streamlit's tables
AT_REST = "[data-test-script-state=notRunning][data-test-connection-state=CONNECTED]"
TABLE = "[data-testid=stDataFrame]"

Seen = Locator | Callable[[], object]
Name = str | re.Pattern[str]


def open_tab(
    browser: Browser, base: str, *, width: int = 1280, height: int = 1000, scheme: str = "light"
) -> Tab:
    """A tab in a browser profile of its own; ``base`` is where the app's addresses begin."""
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if scheme == "dark" else "light",
        device_scale_factor=1,
    )
    return Tab(context.new_page(), base)


class Tab:
    """One browser tab.

    Attributes:
        page: Playwright's page, to look at what is drawn.
        errors: exceptions of scripts that nobody caught.
        foreign: addresses asked for that are not the app's own.
    """

    def __init__(self, page: Page, base: str) -> None:
        self.page = page
        self.base = base.partition("?")[0].rstrip("/")
        self.errors: list[str] = []
        self.foreign: list[str] = []
        page.set_default_timeout(PATIENCE * 1000)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", self._note)

    def _note(self, request: Request) -> None:
        if not request.url.startswith((self.base, "blob:", "data:", "ws://127.0.0.1")):
            self.foreign.append(request.url)

    def close(self) -> None:
        """Closes the tab together with its browser profile."""
        self.page.context.close()

    # Looking

    def until(self, seen: Seen, what: object = "", patience: float = PATIENCE) -> None:
        """Waits until something shows, or fails after ``patience`` seconds."""
        assert self._within(seen, patience), f"not seen within {patience:g} s: {what or seen}"

    def _within(self, seen: Seen, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not _shows(seen):
            if time.monotonic() > end:
                return False
            self.page.wait_for_timeout(100)
        return True

    def rests(self) -> bool:
        """Whether the page's script has run to its end."""
        return self.page.locator(AT_REST).count() > 0

    def rest(self) -> None:
        """Waits until the page is completely drawn."""
        self.until(self.rests, "the page at rest")

    # Acting

    def act(
        self, action: Callable[[], object], seen: Seen, what: object = "", *, lost: float = LOST
    ) -> None:
        """Does something, again when it was lost, until its effect shows.

        Args:
            lost: seconds without effect after which it is done again if the page rests.
        """
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            self.rest()
            with contextlib.suppress(NotInTime):
                action()
            if self._within(seen, lost):
                return
            self._within(lambda: _shows(seen) or self.rests(), max(0.0, end - time.monotonic()))
            if _shows(seen):
                return
        raise AssertionError(f"{what or action} had no effect within {PATIENCE:g} s: {seen}")

    def click(self, target: Locator, seen: Seen, *, lost: float = LOST) -> None:
        """Clicks on something until its effect shows."""
        target.wait_for()

        def click() -> None:
            if target.is_visible():  # what the first click took away may come back as another
                target.click(timeout=AT_ONCE)

        self.act(click, seen, f"a click on {target}", lost=lost)

    def button(self, name: Name) -> Locator:
        """The first button of that name (a text: exactly that name)."""
        found = self.page.get_by_role("button", name=name, exact=isinstance(name, str))
        return found.first

    def press(self, name: Name, seen: Seen) -> None:
        """Presses a button until its effect shows."""
        self.click(self.button(name), seen)

    def pick(self, name: str) -> None:
        """Picks one of a row of choices."""
        radio = self.page.get_by_role("radio", name=name, exact=True).first
        radio.wait_for()
        if not radio.is_checked():
            self.click(radio, radio.is_checked)
        self.rest()

    def turn_to(self, name: str) -> None:
        """Turns to a page of a tabbed part."""
        ear = self.page.get_by_role("tab", name=name).first
        self.click(ear, lambda: ear.get_attribute("aria-selected") == "true")

    def unfold(self, title: str, inside: Locator) -> None:
        """Opens a folded part, if it is closed, until what is in it shows."""
        part = self.page.locator("details", has=self.page.get_by_text(title)).last
        part.wait_for()

        def open_it() -> None:
            if part.get_attribute("open") is None:
                part.locator("summary").first.click(timeout=AT_ONCE)

        self.act(open_it, inside, f"unfolding {title}")

    def choose(self, label: str, option: str, seen: Seen | None = None) -> None:
        """Chooses from a list, or writes what is not listed where that is allowed."""
        box = self.page.get_by_role("combobox", name=re.compile(label)).first
        listed = self.page.get_by_role("option").filter(has_text=option).first
        box.wait_for()

        def take() -> None:
            try:
                box.click(timeout=AT_ONCE)
                box.fill(option)
                listed.click(timeout=AT_ONCE)
            finally:
                box.blur()  # what was typed and not chosen goes

        def taken() -> bool:
            return box.input_value() == option and box.get_attribute("aria-expanded") == "false"

        self.act(take, seen or taken, f"choosing {option}")

    def fill(self, label: str, value: str, seen: Seen | None = None) -> None:
        """Writes into a field and presses Enter until the app has taken the value."""
        field = self.page.get_by_label(label, exact=True)
        untold = self.page.get_by_test_id("InputInstructions").filter(has_text="Press Enter")

        def write() -> None:
            field.fill(value)
            field.press("Enter")

        def told() -> bool:
            return field.input_value() == value and untold.count() == 0

        self.act(write, seen or told, f"{value} for {label}")

    def download(self, button: Locator, target: Path) -> Path:
        """Presses a button that hands out a file, and keeps the file in a folder or as a file."""
        button.wait_for()
        self.rest()
        with self.page.expect_download(timeout=PATIENCE * 1000) as offered:
            button.click()
        path = target / offered.value.suggested_filename if target.is_dir() else target
        offered.value.save_as(path)
        return path

    # Going about the app

    def visit(self, address: str) -> None:
        """Opens an address, or a path of the app, and waits until it is drawn."""
        whole = address if "://" in address else f"{self.base}/{address.lstrip('/')}"
        self.page.goto(whole)
        self.rest()

    def go(self, name: str) -> None:
        """Turns to another page of the app, on a narrow screen one listed under "more"."""
        link = self.page.get_by_test_id("stTopNavLink").filter(
            has_text=re.compile(rf"^\s*{name}\s*$")
        )
        path = urlsplit(link.first.get_attribute("href") or "").path
        shown = self.page.get_by_role("link", name=name, exact=True)

        def follow() -> None:
            if shown.count():
                shown.first.click(timeout=AT_ONCE)
                return
            self.page.get_by_test_id("stTopNavSection").click(timeout=AT_ONCE)
            self.page.get_by_role("menuitem", name=name, exact=True).click(timeout=AT_ONCE)

        if not self.is_at(path):
            self.act(follow, lambda: self.is_at(path), f"going to {name}")
        self.rest()

    def is_at(self, path: str) -> bool:
        """Whether the address bar says so."""
        return urlsplit(self.page.url).path.rstrip("/") == path.rstrip("/")

    def rows(self) -> list[list[str]]:
        """Texts of the first table, without its head."""
        lines = self.page.locator(TABLE).first.locator("canvas tr:has(td)")
        found: list[list[str]] = lines.evaluate_all(
            "rows => rows.map(row => [...row.querySelectorAll('td')].map(one => one.textContent))"
        )
        return found

    def mark(self, run: str, seen: Seen) -> None:
        """Marks a run in the table of runs until the effect shows."""
        body = self.page.locator(f"{TABLE} .dvn-scroller").first

        def names() -> list[str]:
            return [row[0] for row in self.rows()]

        def click() -> None:
            height = ROW * (names().index(run) + 1) + ROW / 2
            body.click(position={"x": 18.0, "y": height}, timeout=AT_ONCE)

        self.until(lambda: run in names(), f"{run} in the table")
        self.act(click, seen, f"marking {run}")

    # Watching a run

    def start(self) -> str:
        """Starts the run that the Start page describes and is led to its Live page; its name."""
        before = self.run()
        self.press("Start", lambda: self.is_at("/live") and self.run() not in ("", before))
        self.rest()
        return self.run()

    def run(self) -> str:
        """Name of the run that the address bar names."""
        return parse_qs(urlsplit(self.page.url).query).get("run", [""])[0]

    def status(self, word: str, patience: float = PATIENCE) -> None:
        """Waits for what the strip says the run is doing."""
        badge = self.page.locator(".strip .badge", has_text=re.compile(word))
        self.until(badge, f"the status {word}", patience)

    def finish(self) -> None:
        """Waits for the end of the run."""
        self.status("Finished", 2 * PATIENCE)

    def command(self, app: App, button: Locator) -> None:
        """Presses a button that tells the run something, until it has been told once."""
        before = app.commands()
        self.click(button, lambda: app.commands() > before)

    def steering(self, name: str) -> Locator:
        """A button of the steering panel."""
        return self.page.get_by_test_id("stSidebar").get_by_role("button", name=name, exact=True)

    def stop(self) -> None:
        """Stops the run."""
        stopped = self.page.locator(".strip .badge", has_text="Stopped")
        self.click(self.steering("Stop"), stopped)

    def step(self) -> int:
        """Steps done, as the strip says."""
        text = self.page.locator(".strip .steps").inner_text()
        return int(re.sub(r"\D", "", text.partition("/")[0]) or 0)

    def wait_for_step(self, step: int) -> None:
        """Waits until that many steps are done."""
        self.until(lambda: self.step() >= step, f"step {step}")

    def chip(self, text: str) -> Locator:
        """A setting that the strip shows as changed by hand."""
        return self.page.locator(".strip .chip", has_text=re.compile(text))


def _shows(seen: Seen) -> bool:
    """Whether it is there now; not while a redraw has taken away, or doubled, what is looked at."""
    try:
        return bool(seen.first.is_visible() if isinstance(seen, Locator) else seen())
    except NotNow:
        return False
