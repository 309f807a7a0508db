"""Samples a second on the card and in the strip agree, and the wait for data has a chart."""

from __future__ import annotations

import re
from contextlib import closing

import pytest

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.events import RunFinished
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from inspector.training import runner
from tests.app.server import App
from tests.app.tab import Tab

pytestmark = pytest.mark.browser


def test_card_and_strip_read_samples_off_the_clock_and_agree(tab: Tab, app: App) -> None:
    slow = Controls(max_steps_per_s=5.0)
    name = runner.start(RunConfig(controls=slow, torch_threads=1, validation=0.0), app.runs_dir)
    try:
        tab.page.set_viewport_size({"width": 1600, "height": 800})
        tab.visit(f"live?run={name}")
        card = tab.page.locator(".card.number", has_text="Samples per second").locator(".value")
        strip = tab.page.locator(".strip .fact", has_text="samples/s").locator("b")

        def agree() -> bool:
            # Five steps a second of 64 samples, 29 in the last of an epoch's 23; both round.
            pair = digits(card.inner_text()), digits(strip.inner_text())
            return 250 < pair[0] < 330 and pair[0] == pytest.approx(pair[1], rel=0.03)

        tab.until(agree, "the same samples a second twice")
        chart = tab.page.locator(
            ".card.line", has=tab.page.locator("h3", has_text="Time of a step")
        )
        tab.unfold("Speed and waiting for data", chart)
        chart.locator(".legend b").nth(1).wait_for()
        waiting = re.compile(r"waiting for data\s*[\d.]+ (µs|ms)")
        tab.until(lambda: waiting.search(chart.inner_text()), "the wait in the legend")
        clipped = tab.page.locator(".card.number", has_text="Steps clipped")
        assert not clipped.is_visible()  # nothing is clipped, and nobody wants it
        app.set(name, "clip", "norm")
        tab.until(clipped, "how many steps are clipped, now that they may be")
        app.set(name, "clip", "off")
        runner.stop()
        tab.status("Stopped")
        # Not as fast as without slow motion.
        tab.until(lambda: 250 < digits(card.inner_text()) < 330, "the pace of slow motion")
    finally:
        runner.stop()
        assert runner.join(60)


def test_steps_of_uneven_length_bring_no_more_samples_than_there_were(tab: Tab, app: App) -> None:
    """Nine steps of 10 ms and one of 910 ms, 64 samples each: 640 samples a second."""
    keys = (SeriesKey("loss"), SeriesKey("step_time"), SeriesKey("samples_per_s"))
    with closing(Writer(create_run(app.runs_dir, "uneven", {"config": {}}))) as writer:
        for step in range(2000):  # far more than the card has points
            seconds = 0.91 if step % 10 == 9 else 0.01
            writer.append("scalar", step, keys, [1.0, seconds, 64 / seconds])
        writer.heartbeat(2000, "finished", total_steps=2000)
        writer.event(2000, RunFinished())
    tab.visit("live?run=uneven")
    card = tab.page.locator(".card.number", has_text="Samples per second").locator(".value")
    tab.until(lambda: 550 < digits(card.inner_text()) < 750, "640 samples a second")


def digits(text: str) -> float:
    return float(re.sub(r"[^\d.]", "", text) or "nan")
