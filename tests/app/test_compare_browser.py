"""A person starts two runs that differ in one setting, marks both, and sees them compared."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.app.server import App

pytestmark = pytest.mark.browser
SHORT = 30_000
ROW = 35  # pixels of a row of Streamlit's tables
COLOURS = {"#0072b2": (0, 114, 178), "#d55e00": (213, 94, 0)}


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    served = App(tmp_path_factory.mktemp("compare") / "runs")
    yield served
    served.close()


@pytest.fixture(scope="module")
def page(chromium: Any, app: App) -> Iterator[Any]:
    context = chromium.new_context(
        viewport={"width": 1280, "height": 800}, color_scheme="light", device_scale_factor=1
    )
    page = context.new_page()
    page.set_default_timeout(SHORT)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(app.link)
    yield page
    context.close()
    assert errors == []


def until(page: Any, reached: Callable[[], bool]) -> None:
    for _ in range(SHORT // 100):
        if reached():
            return
        page.wait_for_timeout(100)
    raise AssertionError("not reached")


def unfold(page: Any, title: str, inside: Any) -> None:
    """Opens a folded part; a page that is still filling may not heed the first click."""
    for _ in range(5):
        page.get_by_text(title).click()
        for _ in range(60):
            if inside.is_visible():
                return
            page.wait_for_timeout(100)
    raise AssertionError(f"{title} does not open")


def start_and_finish(page: Any) -> None:
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/live**")
    page.locator(".strip .badge:has-text('Finished')").wait_for()


def pixels(page: Any, colour: tuple[int, int, int]) -> int:
    """How many pixels of the first chart are drawn in a colour."""
    return int(
        page.locator(".card canvas").first.evaluate(
            """(canvas, [r, g, b]) => {
              const { width, height } = canvas
              const { data } = canvas.getContext("2d").getImageData(0, 0, width, height)
              let found = 0
              for (let i = 0; i < data.length; i += 4) {
                const off = [data[i] - r, data[i + 1] - g, data[i + 2] - b].map(Math.abs)
                if (Math.max(...off) < 6 && data[i + 3] > 200) found++
              }
              return found
            }""",
            list(colour),
        )
    )


def mark(page: Any, row: int) -> None:
    table = page.locator("[data-testid=stDataFrame] .dvn-scroller").first
    table.click(position={"x": 18, "y": ROW * row + ROW // 2})


def test_two_runs_are_started_that_differ_in_clipping(page: Any) -> None:
    unfold(page, "Choose model, data and optimizer", page.get_by_text("Length in"))
    page.get_by_role("radio", name="steps", exact=True).click()
    length = page.get_by_label("Steps", exact=True)
    length.fill("25")
    length.press("Enter")
    page.get_by_text("25 steps").wait_for()
    start_and_finish(page)

    page.get_by_role("link", name="Start", exact=True).first.click()
    unfold(page, "Choose model, data and optimizer", page.get_by_text("Practices: schedule"))
    unfold(page, "Practices: schedule", page.get_by_role("tab", name="Steps"))
    page.get_by_role("tab", name="Steps").click()
    page.get_by_role("radio", name="norm", exact=True).click()
    threshold = page.get_by_label("Clip above", exact=True)
    threshold.fill("0.05")
    threshold.press("Enter")
    page.get_by_text("clipping by norm 0.05").wait_for()
    start_and_finish(page)


def test_both_are_marked_and_compared(page: Any) -> None:
    page.goto(re.sub(r"/live.*", "/runs", page.url))
    page.locator("[data-testid=stDataFrame] canvas").first.wait_for()
    mark(page, 1)
    page.get_by_role("button", name="Open").wait_for()
    mark(page, 2)
    page.get_by_text("2 runs").wait_for()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_url("**/compare?**runs=**")


def test_two_curves_are_drawn_and_named(page: Any) -> None:
    page.locator(".card canvas").first.wait_for()
    legend = page.locator(".card").first.locator(".legend .entry")
    until(page, lambda: legend.count() == 2)
    assert all("mlp-digits" in text for text in legend.all_inner_texts())
    for colour in COLOURS.values():
        until(page, lambda colour=colour: pixels(page, colour) > 50)


def test_only_what_differs_is_listed(page: Any) -> None:
    cells = page.locator("[data-testid=stDataFrame]").first.locator("canvas td")
    until(page, lambda: "controls.clip" in cells.all_text_contents())
    assert set(cells.all_text_contents()) - {""} == {
        "controls.clip", "off", "norm", "controls.clip_threshold", "1", "0.05",
    }  # fmt: skip


def test_curves_move_to_epochs_without_losing_their_colours(page: Any) -> None:
    page.get_by_role("radio", name="Epochs", exact=True).click()
    for colour in COLOURS.values():
        until(page, lambda colour=colour: pixels(page, colour) > 50)


def test_the_link_alone_opens_the_same_comparison(page: Any) -> None:
    page.reload()
    legend = page.locator(".card").first.locator(".legend .entry")
    legend.first.wait_for()
    assert legend.count() == 2
