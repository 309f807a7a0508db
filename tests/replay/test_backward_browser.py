"""The replay and presenter mode in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.app.server import App
from tests.app.tab import PATIENCE, Tab, open_tab

pytestmark = pytest.mark.browser
DONE = "g.node.done text.gradient"


@pytest.fixture(scope="module")
def tab(chromium: Any, app: App) -> Iterator[Tab]:
    opened = open_tab(chromium, app.base, height=900)
    problems: list[str] = []
    ours = re.compile("replay|presenter|typing|graph-layout")
    opened.page.on(
        "pageerror", lambda e: problems.append(e.stack) if ours.search(e.stack or "") else None
    )
    opened.visit(app.link)
    yield opened
    opened.close()
    assert problems == []


def place(tab: Tab, at: int) -> None:
    tab.page.locator(f'.replay[data-at="{at}"]').wait_for()


def key(tab: Tab, *names: str) -> None:
    for name in names:
        tab.page.keyboard.press(name)


def link_says(tab: Tab, text: str) -> None:
    tab.until(lambda: text in tab.page.url, text)


def example(tab: Tab, name: str, node: str) -> None:
    """Chooses an example, until its picture is drawn."""
    tab.click(tab.page.get_by_text(name, exact=True), tab.page.locator("g.node", has_text=node))
    place(tab, 0)


def title(tab: Tab) -> str:
    return str(tab.page.locator(".replay h3").inner_text())


def test_the_square_of_a_sum_backwards_reads_six_and_six(tab: Tab) -> None:
    page = tab.page
    tab.visit("backward")
    page.locator(".replay .picture svg").wait_for()
    place(tab, 0)
    key(tab, "ArrowRight")
    place(tab, 1)
    card = page.locator(".replay .card")
    assert title(tab) == "PowBackward0"
    assert card.locator(".sum").inner_text().strip() == "1 · 6 = 6"
    page.get_by_role("button", name="Step →").click()
    place(tab, 2)
    assert title(tab) == "AddBackward0"
    assert card.locator(".sent .target").all_inner_texts() == ["to x (a)", "to y (b)"]
    assert card.locator(".sent b.number").all_inner_texts() == ["6", "6"]
    assert "agrees" in card.locator(".check").inner_text()
    key(tab, "End")
    place(tab, 4)
    page.locator(DONE).nth(3).wait_for()
    assert sorted(page.locator(DONE).all_text_contents()) == [
        ".grad 6", ".grad 6", "gradient 1", "gradient 6",
    ]  # fmt: skip
    key(tab, "ArrowLeft", "ArrowLeft", "ArrowLeft")
    place(tab, 1)
    page.locator("g.node.now", has_text="PowBackward0").wait_for()
    link_says(tab, "at=1")


def test_typing_an_expression_does_not_step(tab: Tab) -> None:
    page = tab.page
    box = page.get_by_label("Expression", exact=True)
    box.fill("x * y * 7")
    key(tab, "ArrowRight", "ArrowLeft", "Home", "End")
    place(tab, 1)
    tab.fill("Expression", "x * y * 7", page.locator("g.node", has_text="value 14"))
    place(tab, 0)
    tab.fill("Expression", "x *", page.get_by_text("has a mistake"))
    example(tab, "A neuron", "SigmoidBackward0")


def test_breaks_at_a_norm_and_at_a_node(tab: Tab) -> None:
    page = tab.page
    example(tab, "x² + 2x + 1", "value 16")
    page.get_by_label("Break at").select_option("norm")
    page.get_by_label("Threshold").fill("7.5")
    tab.press("Run to break", lambda: title(tab) == "x: gradient accumulates")
    assert page.locator(".replay .card .sum").inner_text().strip() == "0 (None) + 8 = 8"
    page.get_by_label("Break at").select_option("op")
    page.get_by_label("Which").select_option("PowBackward0")
    again = page.get_by_text("Stopped at PowBackward0 (searched again from the start).")
    tab.press("Run to break", again)


def test_a_link_reopens_exactly_this_view(tab: Tab) -> None:
    page = tab.page
    example(tab, "A NaN is born", "SqrtBackward0")
    page.get_by_label("Break at").select_option("nonfinite")
    tab.press("Run to break", page.get_by_text("Stopped at SqrtBackward0."))
    toggle = page.locator(".st-key-presenter-toggle button").first
    tab.click(toggle, lambda: "presenter=1" in page.url)
    link_says(tab, "at=3")
    second = Tab(page.context.new_page(), tab.base)
    second.visit(page.url)
    second.page.locator('.replay.large[data-at="3"]').wait_for()
    assert title(second) == "SqrtBackward0"
    size = "parseFloat(getComputedStyle(document.documentElement).fontSize)"
    assert float(second.page.evaluate(size)) > 18
    second.page.close()


def test_keys_in_presenter_mode(tab: Tab) -> None:
    page = tab.page
    keys = page.get_by_role("dialog", name="Keys")
    tab.act(lambda: key(tab, "?"), keys, "?")
    key(tab, "Escape")
    keys.wait_for(state="detached")
    tab.act(lambda: key(tab, "1"), page.locator("g.node", has_text="value 9"), "1")
    place(tab, 0)
    key(tab, "ArrowRight")
    place(tab, 1)


def test_breaks_at_the_first_non_finite_node_of_the_nan_preset(tab: Tab, app: App) -> None:
    page = tab.page
    tab.go("Start")
    loaded = page.get_by_role("heading", name=re.compile("Log trap"))
    tab.act(lambda: key(tab, "9"), loaded, "9")
    tab.act(lambda: key(tab, "Space"), lambda: tab.is_at("/live"), "Space")
    tab.status("Running")
    space(tab, app)
    tab.status("Paused")
    tab.go("Backward")
    record = tab.button("Record when NaN or infinity comes")
    tab.click(page.get_by_text("Step of the run"), record)
    tab.command(app, record)
    page.get_by_text("Asked for; it appears here when it comes.").wait_for()
    app.full_speed(tab.run())
    app.set(tab.run(), "lr", 0.1)  # fewer steps to the NaN
    space(tab, app)
    tab.until(page.get_by_text(re.compile("Stopped at")), "the break", 3 * PATIENCE)
    assert title(tab) == "LogSoftmaxBackward0"
    shown = page.locator(".replay .card").inner_text()
    assert "NaN first appears here" in shown
    assert re.search(
        r"first such output there is that of LogBackward0 \(score · log_trap\.py:\d+\)", shown
    )
    place(tab, 2)
    tab.status("Paused")


def space(tab: Tab, app: App) -> None:
    """Presses the space bar until the run has been told to pause or to go on."""
    before = app.commands()
    tab.act(lambda: key(tab, "Space"), lambda: app.commands() > before, "Space")


def test_the_mode_is_left_by_its_button(tab: Tab, app: App) -> None:
    leave = tab.page.get_by_role("button", name="Leave presenter mode").last
    tab.click(leave, lambda: "presenter" not in tab.page.url)
    tab.page.locator(".replay:not(.large)").wait_for()
    tab.stop()
    assert "Traceback" not in app.log.read_text()
