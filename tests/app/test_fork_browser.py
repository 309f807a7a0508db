"""A person forks a run with another learning rate and sees both over each other."""

from __future__ import annotations

import pytest

from inspector.config import RunConfig
from inspector.store.reader import Run
from inspector.training import runner
from inspector.views.checkpoints import lineage
from tests.app.server import App
from tests.app.tab import Tab

pytestmark = pytest.mark.browser


def test_fork_with_another_learning_rate_leads_to_the_comparison(tab: Tab, app: App) -> None:
    config = RunConfig(steps=60, batch_size=100, torch_threads=1, checkpoint_every=20)
    runner.start(config, app.runs_dir, "parent")
    assert runner.join(60)
    tab.visit("runs")
    tab.mark("parent", tab.button("Open"))
    place = tab.page.get_by_label("Go on from", exact=True)
    tab.unfold("Go on: resume or fork", place)
    tab.choose("Go on from", "checkpoint · step 20")
    tab.fill("Learning rate", "0.02")
    tab.press("Fork", lambda: tab.is_at("/compare"))
    tab.page.get_by_text("parent-fork").first.wait_for()
    tab.page.locator("canvas").first.wait_for()
    with Run(app.runs_dir / "parent-fork") as run:
        origin = lineage(run)
        assert origin is not None
        assert (origin.parent, origin.step, origin.changes) == ("parent", 20, {"lr": 0.02})
    assert tab.errors == []
