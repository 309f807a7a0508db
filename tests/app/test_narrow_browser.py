"""A page at 200 % or on a telephone hides nothing, and a heat map is read with the keyboard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import inspector
from tests.app.server import App
from tests.app.tab import Tab, open_tab

pytestmark = pytest.mark.browser
TOO_WIDE = "main => main.scrollWidth - main.clientWidth"


@pytest.fixture
def run(app: App) -> str:
    """A run of two modules, of which each step is measured."""
    if not (app.runs_dir / "narrow").exists():
        train(app.runs_dir)
    return "narrow"


def train(folder: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with inspector.watch(model, optimizer, run_dir=folder, name="narrow", every=1) as watch:
        for _ in range(5):
            optimizer.zero_grad()
            loss = model(torch.randn(3, 4)).square().mean()
            loss.backward()
            watch.record(loss=loss)
            optimizer.step()


@pytest.mark.parametrize("width", [640, 400])
def test_a_narrow_page_shows_itself_and_cuts_no_choice(
    chromium: Any, app: App, run: str, width: int
) -> None:
    tab = open_tab(chromium, app.base, width=width, height=800)
    try:
        tab.visit(app.link)
        tab.visit(f"gradients?run={run}")
        assert tab.page.locator("#stSidebar").get_attribute("data-collapsed") == "true"
        tab.until(tab.page.locator(".card .ramp"), "the legend of the heat map")
        assert tab.page.get_by_test_id("stMain").evaluate(TOO_WIDE) == 0
        for part in ("[role=radio]", ".card .legend"):
            for box in (
                one.bounding_box() for one in tab.page.get_by_test_id("stMain").locator(part).all()
            ):
                assert box is not None
                assert box["x"] >= 0
                assert box["x"] + box["width"] <= width
    finally:
        tab.close()


def test_a_heat_map_is_read_and_opened_with_the_keyboard(tab: Tab, run: str) -> None:
    tab.visit(f"gradients?run={run}")
    tab.until(tab.page.locator(".card .ramp"), "the heat map")
    canvas = tab.page.locator("canvas.matrix").first
    canvas.focus()

    def label() -> str:
        return str(canvas.get_attribute("aria-label"))

    canvas.press("ArrowDown")
    tab.until(lambda: "0, step 4" in label(), "the newest measurement of the first row")
    canvas.press("ArrowDown")
    canvas.press("ArrowLeft")
    tab.until(lambda: "1, step 3" in label(), "the one before of the second row")
    tab.until(tab.page.locator(".tip", has_text="step 3"))
    tab.act(
        lambda: canvas.press("Enter"),
        tab.page.get_by_test_id("stMarkdownContainer").get_by_role("heading", name="1", exact=True),
        "Enter on a row",
    )


def test_a_row_of_choices_at_the_side_stays_one_row(tab: Tab, run: str) -> None:
    tab.visit(f"live?run={run}")
    choices = [tab.page.get_by_role("radio", name=name) for name in ("pause", "skip", "continue")]
    tab.unfold("More", choices[0])
    tops = {round(choice.locator("..").bounding_box()["y"]) for choice in choices}
    assert len(tops) == 1
