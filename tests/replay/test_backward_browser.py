"""The replay and presenter mode in a real browser."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from server import App

pytestmark = pytest.mark.browser
WAIT = 40_000  # milliseconds on a busy two-core machine
DONE = "g.node.done text.gradient"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    served = App(tmp_path_factory.mktemp("replay") / "runs")
    yield served
    served.close()


@pytest.fixture(scope="module")
def page(chromium: Any, app: App) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.set_default_timeout(WAIT)
    problems: list[str] = []
    ours = re.compile("replay|presenter|typing|graph-layout")
    tab.on("pageerror", lambda e: problems.append(e.stack) if ours.search(e.stack or "") else None)
    tab.goto(app.link)
    tab.get_by_role("heading", name="Presets").wait_for()
    yield tab
    context.close()
    assert problems == []


def place(page: Any, at: int) -> None:
    page.locator(f'.replay[data-at="{at}"]').wait_for()


def key(page: Any, *names: str) -> None:
    for name in names:
        page.keyboard.press(name)


def link_says(page: Any, text: str) -> None:
    page.wait_for_function("text => location.href.includes(text)", arg=text)


def test_the_square_of_a_sum_backwards_reads_six_and_six(page: Any, app: App) -> None:
    page.goto(f"{app.base}/backward")
    page.locator(".replay .picture svg").wait_for()
    place(page, 0)
    key(page, "ArrowRight")
    place(page, 1)
    card = page.locator(".replay .card")
    assert card.locator("h3").inner_text() == "PowBackward0"
    assert card.locator(".sum").inner_text().strip() == "1 · 6 = 6"
    page.get_by_role("button", name="Step →").click()
    place(page, 2)
    assert card.locator("h3").inner_text() == "AddBackward0"
    assert card.locator(".sent .target").all_inner_texts() == ["to x (a)", "to y (b)"]
    assert card.locator(".sent b.number").all_inner_texts() == ["6", "6"]
    assert "agrees" in card.locator(".check").inner_text()
    key(page, "End")
    place(page, 4)
    page.locator(DONE).nth(3).wait_for()
    assert sorted(page.locator(DONE).all_text_contents()) == [
        ".grad 6", ".grad 6", "gradient 1", "gradient 6",
    ]  # fmt: skip
    key(page, "ArrowLeft", "ArrowLeft", "ArrowLeft")
    place(page, 1)
    page.locator("g.node.now", has_text="PowBackward0").wait_for()
    link_says(page, "at=1")


def test_typing_an_expression_does_not_step(page: Any) -> None:
    box = page.get_by_label("Expression", exact=True)
    box.fill("x * y * 7")
    key(page, "ArrowRight", "ArrowLeft", "Home", "End")
    place(page, 1)
    box.press("Enter")
    page.locator("g.node", has_text="value 14").wait_for()
    place(page, 0)
    box.fill("x *")
    box.press("Enter")
    page.get_by_text("has a mistake").wait_for()
    page.get_by_text("A neuron", exact=True).click()
    page.locator("g.node", has_text="SigmoidBackward0").wait_for()


def test_breaks_at_a_norm_and_at_a_node(page: Any) -> None:
    page.get_by_text("x² + 2x + 1", exact=True).click()
    page.locator("g.node", has_text="value 16").wait_for()
    place(page, 0)
    page.get_by_label("Break at").select_option("norm")
    page.get_by_label("Threshold").fill("7.5")
    page.get_by_role("button", name="Run to break").click()
    assert page.locator(".replay h3").inner_text() == "x: gradient accumulates"
    assert page.locator(".replay .card .sum").inner_text().strip() == "0 (None) + 8 = 8"
    page.get_by_label("Break at").select_option("op")
    page.get_by_label("Which").select_option("PowBackward0")
    page.get_by_role("button", name="Run to break").click()
    page.get_by_text("Stopped at PowBackward0 (searched again from the start).").wait_for()


def test_a_link_reopens_exactly_this_view(page: Any) -> None:
    page.get_by_text("A NaN is born", exact=True).click()
    page.locator("g.node", has_text="SqrtBackward0").wait_for()
    page.get_by_label("Break at").select_option("nonfinite")
    page.get_by_role("button", name="Run to break").click()
    page.get_by_text("Stopped at SqrtBackward0.").wait_for()
    page.locator(".st-key-presenter-toggle button").first.click()
    link_says(page, "presenter=1")
    link_says(page, "at=3")
    second = page.context.new_page()
    second.set_default_timeout(WAIT)
    second.goto(page.url)
    second.locator('.replay.large[data-at="3"]').wait_for()
    assert second.locator(".replay h3").inner_text() == "SqrtBackward0"
    assert (
        float(second.evaluate("parseFloat(getComputedStyle(document.documentElement).fontSize)"))
        > 18
    )
    second.close()


def test_keys_in_presenter_mode(page: Any) -> None:
    key(page, "?")
    page.get_by_role("dialog", name="Keys").wait_for()
    key(page, "Escape")
    page.get_by_role("dialog", name="Keys").wait_for(state="detached")
    key(page, "1")
    page.locator("g.node", has_text="value 9").wait_for()
    place(page, 0)
    key(page, "ArrowRight")
    place(page, 1)


def test_breaks_at_the_first_non_finite_node_of_the_nan_preset(page: Any) -> None:
    page.get_by_role("link", name="Start", exact=True).first.click()
    page.get_by_role("heading", name="Presets").wait_for()
    key(page, "9")
    page.get_by_role("heading", name=re.compile("Log trap")).wait_for()
    key(page, "Space")
    page.wait_for_url("**/live**")
    page.locator(".strip .badge:has-text('Running')").wait_for()
    key(page, "Space")
    page.locator(".strip .badge:has-text('Paused')").wait_for()
    page.get_by_role("link", name="Backward", exact=True).first.click()
    page.get_by_text("Step of the run").click()
    page.get_by_role("button", name="Record when NaN").click()
    page.get_by_text("Asked for; it appears here when it comes.").wait_for()
    key(page, "Space")
    page.get_by_text(re.compile("Stopped at")).wait_for(timeout=3 * WAIT)
    assert page.locator(".replay h3").inner_text() == "LogSoftmaxBackward0"
    shown = page.locator(".replay .card").inner_text()
    assert "NaN first appears here" in shown
    assert re.search(
        r"first such output there is that of LogBackward0 \(score · log_trap\.py:\d+\)", shown
    )
    place(page, 2)
    page.locator(".strip .badge:has-text('Paused')").wait_for()


def test_the_mode_is_left_by_its_button(page: Any, app: App) -> None:
    page.get_by_role("button", name="Leave presenter mode").last.click()
    page.wait_for_function("() => !location.href.includes('presenter')")
    page.locator(".replay:not(.large)").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator(".strip .badge:has-text('Stopped')").wait_for()
    assert "Traceback" not in app.log.read_text()
