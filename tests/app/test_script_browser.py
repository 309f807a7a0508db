"""A script's run in the browser: what is thinned, equal, named otherwise or late says so."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.events import RunFinished, RunStarted, ScheduleChanged
from inspector.quantities import SeriesKey
from inspector.store.layout import ABSENT, create_run
from inspector.store.writer import Writer
from tests.app.server import App
from tests.app.tab import Tab, open_tab

pytestmark = pytest.mark.browser

STEPS = 400
SPARSE = ("total_grad_norm", "clipped_grad_norm", "total_update_ratio")


def scripted(folder: Path, name: str, *, clipped: bool, losses: tuple[str, ...]) -> None:
    """A finished run that is measured every 100 steps and validates after its last step."""
    path = create_run(folder, name, {"kind": "watched", "script": "train.py"})
    with closing(Writer(path)) as writer:
        writer.event(0, RunStarted())
        writer.event(0, ScheduleChanged(probe="modules and parameters", every=100))
        keys = tuple(map(SeriesKey, (*losses, "lr", "step_time")))
        for step in range(STEPS):
            row = [1 / (step + 1)] * len(losses) + [0.1, 0.001]
            writer.append("scalar", step, keys, np.array(row, np.float32))
        for step in range(0, STEPS, 100):
            row = [2.0, 1.0 if clipped and step else 2.0, 0.001]
            writer.append("full", step, tuple(map(SeriesKey, SPARSE)), np.array(row, np.float32))
        late = (SeriesKey("val_accuracy"),)
        writer.append("late", STEPS, late, np.array([0.5], np.float32))
        writer.event(STEPS, RunFinished())
        writer.heartbeat(STEPS, "finished")


def card(tab: Tab, title: str) -> Any:
    return tab.page.locator(".card.line", has=tab.page.locator("h3", has_text=title))


def test_a_thinned_chart_says_so_and_a_line_that_hides_nothing_is_left_out(
    tab: Tab, app: App
) -> None:
    scripted(app.runs_dir, "calm", clipped=False, losses=("loss",))
    tab.visit("live?run=calm")
    tab.status("Finished")
    norm = card(tab, "Gradient norm")
    tab.until(norm.get_by_text("measured at 4 steps"))
    tab.until(norm.get_by_text("nothing clipped"))
    assert card(tab, "Loss").get_by_text("measured").count() == 0
    assert tab.step() == STEPS  # what was recorded after the last step made none


def test_a_page_that_waits_shows_the_first_run_by_itself(chromium: Any, tmp_path: Path) -> None:
    empty = App(tmp_path / "runs")
    tab = open_tab(chromium, empty.base)
    try:
        tab.visit(empty.link)
        tab.visit("live")
        tab.until(tab.page.get_by_text("Nothing has been recorded yet"))
        scripted(empty.runs_dir, "first", clipped=False, losses=("loss",))
        tab.until(card(tab, "Loss"))
        assert tab.run() == "first"
        scripted(empty.runs_dir, "second", clipped=False, losses=("loss",))
        picker = tab.page.get_by_test_id("stSidebar").get_by_role("combobox").first
        listed = tab.page.get_by_role("option", name="second")

        def look() -> None:
            picker.click()
            tab.page.wait_for_timeout(300)
            if not listed.count():
                tab.page.keyboard.press("Escape")

        tab.act(look, listed, "the second run in the list")
        assert tab.run() == "first"  # a new run does not take the page away
    finally:
        tab.close()
        empty.close()


def test_what_was_clipped_is_drawn_beside_what_came(tab: Tab, app: App) -> None:
    scripted(app.runs_dir, "cut", clipped=True, losses=("d_loss", "g_loss"))
    tab.visit("live?run=cut")
    tab.status("Finished")
    entry = card(tab, "Gradient norm").locator(".entry", has_text="after")
    tab.until(lambda: "".join(entry.inner_text().split()) == "after1", "the norm after clipping")
    loss = card(tab, "Loss").locator(".legend")
    tab.until(lambda: "d_loss" in loss.inner_text() and "g_loss" in loss.inner_text(), "losses")


def test_a_script_without_a_loss_is_told_how_to_give_one(tab: Tab, app: App) -> None:
    scripted(app.runs_dir, "mute", clipped=False, losses=("reward",))
    tab.visit("live?run=mute")
    tab.until(tab.page.get_by_text("a script gives it with watch.record(loss=loss)"))


def test_a_share_counts_every_measured_step_once(tab: Tab, app: App) -> None:
    """Points weigh what they stand for: of the measured steps, 3,200 of 3,400 were clipped."""
    path = create_run(app.runs_dir, "mixed", {"kind": "watched", "script": "train.py"})
    steps = np.arange(8000)
    table = np.ones((8000, 2), np.float32)
    table[(steps >= 4800) & (steps % 16 != 0), 1] = ABSENT  # by then measured less often
    table[(steps >= 4800) & (steps % 16 == 0), 1] = 0
    with closing(Writer(path, queue_rows=10_000)) as writer:
        writer.event(0, RunStarted())
        writer.extend("scalar", 0, (SeriesKey("loss"), SeriesKey("clipped")), table)
        writer.event(8000, RunFinished())
        writer.heartbeat(8000, "finished")
    tab.visit("live?run=mixed")
    tab.status("Finished")
    number = tab.page.locator(".card", has_text="Steps clipped").first
    tab.until(number.get_by_text("94.1%"))
