"""A person forks a run with another learning rate and sees both over each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from inspector.config import RunConfig
from inspector.store.reader import Run
from inspector.training import runner
from inspector.views.checkpoints import lineage
from tests.app.server import App

pytestmark = pytest.mark.browser
SHORT = 40_000


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    runs_dir = tmp_path_factory.mktemp("fork") / "runs"
    config = RunConfig(steps=60, batch_size=100, torch_threads=1, checkpoint_every=20)
    runner.start(config, runs_dir, "parent")
    assert runner.join(60)
    served = App(runs_dir)
    yield served
    served.close()


def test_fork_with_another_learning_rate_leads_to_the_comparison(chromium: Any, app: App) -> None:
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.set_default_timeout(SHORT)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(app.link)
    page.get_by_role("button", name="Start", exact=True).wait_for()
    page.goto(f"{app.base}/runs")
    table = page.locator("[data-testid=stDataFrame] .dvn-scroller").first
    folded = page.get_by_text("Go on: resume or fork")
    for _ in range(5):  # a table that is still filling may not heed the first click
        table.click(position={"x": 18, "y": 52})
        for _ in range(60):
            if folded.is_visible():
                break
            page.wait_for_timeout(100)
    place = page.get_by_label("Go on from")
    for _ in range(5):
        folded.click()
        for _ in range(60):
            if place.is_visible():
                break
            page.wait_for_timeout(100)
        if place.is_visible():
            break
    place.click()
    page.keyboard.type("checkpoint · step 20")
    page.keyboard.press("Enter")
    page.get_by_label("Learning rate", exact=True).fill("0.02")
    page.get_by_role("button", name="Fork", exact=True).click()
    page.wait_for_url("**/compare**")
    page.get_by_text("parent-fork").first.wait_for()
    page.locator("canvas").first.wait_for()
    with Run(app.runs_dir / "parent-fork") as run:
        origin = lineage(run)
        assert origin is not None
        assert (origin.parent, origin.step, origin.changes) == ("parent", 20, {"lr": 0.02})
    assert errors == []
    context.close()
