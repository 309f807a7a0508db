"""A person follows a finding into the next run: button, Start page, verdict; in a real browser."""

from __future__ import annotations

import pytest

from inspector.config import RunConfig
from inspector.presets import PRESETS
from inspector.training import runner
from tests.app.server import App
from tests.app.tab import Tab

pytestmark = pytest.mark.browser


def test_sigmoids_are_replaced_in_the_next_run_which_says_that_it_helped(
    tab: Tab, app: App
) -> None:
    preset = next(preset for preset in PRESETS if preset.key == "vanishing")
    settings = preset.config.to_dict() | {"steps": 120, "torch_threads": 1}
    settings["controls"]["max_steps_per_s"] = None
    first = runner.start(RunConfig.from_dict(settings), app.runs_dir)
    assert runner.join(120)
    tab.visit(f"findings?run={first}")
    changed = "Sigmoid replaced by ReLU"
    tab.press(f"Next run: {changed}, initialised by He", tab.page.get_by_text(f"answers {first}"))
    assert tab.page.get_by_text(changed).first.is_visible()
    app.full_speed(tab.start())
    tab.finish()
    tab.go("Findings")
    verdict = tab.page.locator(".st-key-answer")
    verdict.get_by_text("Recovered").wait_for()
    assert first in verdict.inner_text()
