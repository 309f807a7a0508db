"""Samples a second on the card and in the strip agree, and the wait for data has a chart."""

from __future__ import annotations

import re

import pytest

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.training import runner
from tests.app.server import App
from tests.app.tab import Tab

pytestmark = pytest.mark.browser


def test_card_and_strip_read_samples_off_the_clock_and_agree(tab: Tab, app: App) -> None:
    slow = Controls(max_steps_per_s=5.0)
    name = runner.start(RunConfig(controls=slow, torch_threads=1), app.runs_dir)
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
    finally:
        runner.stop()
        assert runner.join(60)


def digits(text: str) -> float:
    return float(re.sub(r"[^\d.]", "", text) or "nan")
