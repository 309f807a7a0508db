"""A person follows a finding into the next run: button, Start page, verdict; in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from inspector.config import RunConfig
from inspector.presets import PRESETS
from inspector.training import runner
from tests.app.server import App

pytestmark = pytest.mark.browser
WAIT = 60_000


def test_sigmoids_are_replaced_in_the_next_run_which_says_that_it_helped(
    chromium: Any, tmp_path: Path
) -> None:
    preset = next(preset for preset in PRESETS if preset.key == "vanishing")
    settings = preset.config.to_dict() | {"steps": 120, "torch_threads": 1}
    first = runner.start(RunConfig.from_dict(settings), tmp_path / "runs")
    assert runner.join(120)
    app = App(tmp_path / "runs")
    try:
        page = chromium.new_context(viewport={"width": 1280, "height": 1400}).new_page()
        page.set_default_timeout(WAIT)
        page.goto(app.link)
        page.goto(f"{app.base}/findings?run={first}")
        page.get_by_role(
            "button", name="Next run: Sigmoid replaced by ReLU, initialised by He"
        ).click()
        page.get_by_text(f"answers {first}", exact=False).wait_for()
        assert page.get_by_text("Sigmoid replaced by ReLU", exact=False).first.is_visible()
        page.get_by_role("button", name="Start", exact=True).click()
        page.wait_for_url("**/live**")
        page.locator(".strip .badge:has-text('Finished')").wait_for()
        page.get_by_role("link", name="Findings", exact=True).first.click()
        verdict = page.locator(".st-key-answer")
        verdict.get_by_text("Recovered").wait_for()
        assert first in verdict.inner_text()
    finally:
        app.close()
