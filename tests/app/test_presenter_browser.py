"""Presenter mode on a page of tables and choices, in both themes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import inspector
from tests.app.server import App
from tests.app.tab import TABLE, Tab, open_tab

pytestmark = pytest.mark.browser


def train(folder: Path) -> None:
    model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=folder, name="shown") as watch:
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(torch.randn(3, 4)).square().mean()
            watch.record(loss=loss)
            loss.backward()
            optimizer.step()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_choice_made_stands_out_and_no_row_is_cut(chromium: Any, app: App, scheme: str) -> None:
    if not (app.runs_dir / "shown").exists():
        train(app.runs_dir)
    tab = open_tab(chromium, app.base, height=800, scheme=scheme)
    try:
        tab.visit(app.link)
        tab.visit("gradients?run=shown&presenter=1")
        colour = "button => getComputedStyle(button).backgroundColor"
        chosen, other = (
            tab.page.get_by_role("radio", name=name, exact=True)
            for name in ("Norm", "After clipping")
        )
        wanted = "rgb(0, 0, 0)" if scheme == "light" else "rgb(255, 255, 255)"
        tab.until(lambda: chosen.evaluate(colour) == wanted, "the chosen one")
        assert other.evaluate(colour) != wanted
        tab.visit("modules?run=shown&presenter=1")
        rows = tab.page.locator(f"{TABLE} .dvn-scroller").first
        tab.until(rows)
        whole = "table => [table.scrollHeight, table.clientHeight]"
        needed, given = rows.evaluate(whole)
        assert needed <= given
    finally:
        tab.close()


def test_space_pauses_the_run_after_a_switch_or_a_slider_was_used(tab: Tab) -> None:
    """It does not flip the switch back, and is not lost on the slider."""
    run = tab.start()
    tab.visit(f"live?run={run}&presenter=1")
    side = tab.page.get_by_test_id("stSidebar")
    switch = side.locator("label", has_text="each step").first
    tab.click(tab.page.get_by_test_id("stExpandSidebarButton"), switch)
    tab.click(switch, tab.chip("zero_grad"))
    badge = tab.page.locator(".strip .badge")
    tab.act(lambda: tab.page.keyboard.press("Space"), badge.filter(has_text="Paused"))
    assert tab.chip("zero_grad").count() == 1
    slider = side.get_by_role("slider", name="Learning rate").first
    tab.act(lambda: slider.press("ArrowRight"), tab.chip("lr"), "a higher rate")
    tab.act(lambda: tab.page.keyboard.press("Space"), badge.filter(has_text="Running"))
    tab.stop()
