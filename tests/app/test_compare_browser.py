"""A person starts two runs that differ in one setting, marks both, and sees them compared."""

from __future__ import annotations

import pytest

from inspector.store.reader import list_runs
from tests.app.server import App
from tests.app.tab import Tab

pytestmark = pytest.mark.browser
COLOURS = {"#0072b2": (0, 114, 178), "#d55e00": (213, 94, 0)}


def pixels(tab: Tab, colour: tuple[int, int, int]) -> int:
    """How many pixels of the first chart are drawn in a colour."""
    return int(
        tab.page.locator(".card canvas").first.evaluate(
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


def both_are_drawn(tab: Tab) -> bool:
    return all(pixels(tab, colour) > 50 for colour in COLOURS.values())


def test_two_runs_are_started_that_differ_in_clipping(tab: Tab) -> None:
    tab.unfold("Choose model, data and optimizer", tab.page.get_by_text("Length in"))
    tab.pick("steps")
    tab.fill("Steps", "25", tab.page.get_by_text("25 steps"))
    tab.start()
    tab.finish()

    tab.go("Start")
    practices = tab.page.get_by_text("Practices: schedule")
    tab.unfold("Choose model, data and optimizer", practices)
    tab.unfold("Practices: schedule", tab.page.get_by_role("tab", name="Steps"))
    tab.turn_to("Steps")
    tab.pick("norm")
    tab.fill("Clip above", "0.05", tab.page.get_by_text("clipping by norm 0.05"))
    tab.start()
    tab.finish()


def test_both_are_marked_and_compared(tab: Tab, app: App) -> None:
    tab.visit("runs")
    newer, older = (run.name for run in list_runs(app.runs_dir)[:2])
    tab.mark(newer, tab.button("Open"))
    tab.mark(older, tab.page.get_by_text("2 runs"))
    tab.press("Compare", lambda: tab.is_at("/compare"))
    assert tab.page.url.count("runs=") == 2


def test_two_curves_are_drawn_and_named(tab: Tab) -> None:
    legend = tab.page.locator(".card").first.locator(".legend .entry")
    tab.until(lambda: legend.count() == 2, "two curves")
    assert all("mlp-digits" in text for text in legend.all_inner_texts())
    tab.until(lambda: both_are_drawn(tab), "both colours")


def test_only_what_differs_is_listed(tab: Tab) -> None:
    def cells() -> set[str]:
        return {cell for row in tab.rows() for cell in row}

    tab.until(lambda: "controls.clip" in cells(), "the table of differences")
    assert cells() - {""} == {
        "controls.clip", "off", "norm", "controls.clip_threshold", "1", "0.05",
    }  # fmt: skip


def test_curves_move_to_epochs_without_losing_their_colours(tab: Tab) -> None:
    tab.pick("Epochs")
    tab.until(lambda: both_are_drawn(tab), "both colours")


def test_the_link_alone_opens_the_same_comparison(tab: Tab) -> None:
    tab.visit(tab.page.url)
    legend = tab.page.locator(".card").first.locator(".legend .entry")
    tab.until(lambda: legend.count() == 2, "two curves")
    assert tab.errors == []
