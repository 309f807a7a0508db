"""A person starts runs: clicks twice, waits for the compiler, types the first page's address."""

from __future__ import annotations

from contextlib import closing

import pytest

from inspector.config import RunConfig
from inspector.events import RunFinished, RunStarted
from inspector.store.layout import create_run
from inspector.store.reader import list_runs
from inspector.store.writer import Writer
from inspector.training import runner
from tests.app.server import App
from tests.app.tab import Tab

pytestmark = pytest.mark.browser


def names(app: App) -> set[str]:
    return {run.name for run in list_runs(app.runs_dir)}


def test_a_double_click_makes_one_run(tab: Tab, app: App) -> None:
    config = RunConfig(steps=60, batch_size=100, torch_threads=1)
    runner.start(config, app.runs_dir, "forked-once")
    assert runner.join(60)
    tab.visit("runs")
    tab.mark("forked-once", tab.button("Open"))
    tab.unfold("Go on: resume or fork", tab.page.get_by_label("Go on from", exact=True))
    tab.fill("Learning rate", "0.02")
    tab.rest()
    tab.button("Fork").dblclick()
    tab.until(lambda: tab.is_at("/compare"))
    tab.page.get_by_text("forked-once-fork").first.wait_for()
    tab.rest()
    app.still()
    before = names(app)
    assert {name for name in before if name.startswith("forked-once-")} == {"forked-once-fork"}
    tab.page.goto(tab.base)
    tab.rest()
    tab.button("Start").dblclick()
    tab.until(lambda: tab.is_at("/live"))
    tab.button("Stop").wait_for()
    tab.rest()
    assert len(names(app) - before) == 1
    tab.stop()  # other files find the app without a run that goes on


def test_the_strip_says_that_the_model_is_being_compiled(tab: Tab, app: App) -> None:
    content = {"kind": "built_in", "config": RunConfig(compile=True).to_dict()}
    with closing(Writer(create_run(app.runs_dir, "compiling", content))) as writer:
        writer.event(0, RunStarted())
        writer.heartbeat(0, "running", total_steps=100)
        writer.flush()
        tab.page.goto(f"{tab.base}/live?run=compiling")
        waiting = tab.page.locator(".strip .waiting")
        tab.until(lambda: "Compiling the model" in (waiting.text_content() or ""))
        writer.heartbeat(1, "running", total_steps=100)
        writer.flush()
        tab.until(waiting.is_hidden)
        writer.event(1, RunFinished(reason="stopped"))


def test_the_address_of_the_first_page_leads_there(tab: Tab) -> None:
    for address in ("/start", "/start?run=gone"):
        tab.page.goto(f"{tab.base}{address}")
        tab.button("Start").wait_for()
        assert tab.page.url.partition("?")[0] == f"{tab.base}/"
        assert tab.page.get_by_text("Page not found").count() == 0
