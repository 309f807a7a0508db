"""The events of a run can be read whole, on a projector and on a telephone."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from inspector.events import CommandApplied, EpochFinished, Notice, RunFinished, RunStarted
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.server import App
from tests.app.tab import Tab, open_tab

pytestmark = pytest.mark.browser
LONG = (
    "The loss of the second network in the third branch was not finite, born in <b>log</b> of "
    "encoder.layers.11.attention.output.dense at /home/somebody/projects/vision/models/score.py:13."
)


@pytest.fixture
def run(app: App) -> str:
    """A run of many epochs, and of one long sentence."""
    if not (app.runs_dir / "told").exists():
        with closing(Writer(create_run(app.runs_dir, "told", {"config": {}}))) as writer:
            writer.event(0, RunStarted())
            for epoch in range(1, 221):
                writer.event(epoch, EpochFinished(epoch=epoch))
            writer.event(221, CommandApplied(command_id="1", name="lr", effective=0.03, before=0.1))
            writer.event(222, Notice(message=LONG))
            writer.event(223, RunFinished())
            writer.heartbeat(223, "finished")
    return "told"


@pytest.mark.parametrize("width", [390, 1280])
def test_no_sentence_is_cut(chromium: Any, app: App, run: str, width: int) -> None:
    tab = open_tab(chromium, app.base, width=width, height=800)
    try:
        tab.visit(app.link)
        tab.visit(f"events?run={run}")
        words = tab.page.locator(".events .words", has_text="The loss of the second network")
        tab.until(words)
        assert words.inner_text() == LONG  # what looks like markup is none
        box = words.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
        assert words.evaluate("cell => cell.scrollWidth <= cell.clientWidth")
        main = tab.page.get_by_test_id("stMain")
        tab.until(lambda: main.evaluate("main => main.scrollWidth === main.clientWidth"))
    finally:
        tab.close()


def test_a_long_list_shows_its_newest_and_then_all(tab: Tab, run: str) -> None:
    tab.visit(f"events?run={run}")
    rows = tab.page.locator(".events tbody tr")
    tab.until(lambda: rows.count() == 200)
    assert "Run completed" in rows.first.inner_text()
    tab.press("Show all 224", lambda: rows.count() == 224)
    tab.press("Command", lambda: rows.count() == 1)
    assert "lr 0.1 → 0.03" in rows.first.inner_text()
