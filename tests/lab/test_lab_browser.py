"""The lab in a real Chromium: editor, sliders, accidents, under the app's own security policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.app.tab import Seen, Tab
from tests.page_server import served

if TYPE_CHECKING:
    from playwright.sync_api import Locator

pytestmark = pytest.mark.browser

SCRIPT = """
import streamlit as st
st.set_page_config(layout="wide")
from inspector.lab.sandbox import Limits, shared
shared().limits = Limits(seconds=int(st.query_params.get("seconds", 30)))
from inspector.ui.lab_page import lab_page
lab_page()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("lab")
    with served(folder, SCRIPT) as address:
        yield address


@pytest.fixture
def tab(chromium: Any, address: str) -> Iterator[Tab]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    opened = Tab(context.new_page(), address)
    opened.page.on(
        "console",
        lambda said: "Content Security" in said.text and opened.errors.append(said.text),
    )
    yield opened
    assert opened.errors == []
    opened.close()


def lesson(tab: Tab, name: str, seconds: int = 30) -> None:
    tab.visit(f"?lesson={name}&seconds={seconds}")
    tab.page.locator(".cm-content").wait_for()
    tab.page.get_by_text("Ran in").wait_for()
    tab.rest()


def write(tab: Tab, code: str) -> None:
    """Replaces the snippet by typing, as a person does."""
    text = tab.page.locator(".cm-content")
    text.click()
    tab.page.keyboard.press("ControlOrMeta+a")
    tab.page.keyboard.insert_text(code)
    lines = [line.strip() for line in code.splitlines()]
    tab.until(
        lambda: (
            [line.strip() for line in text.inner_text().splitlines() if line.strip()]
            == [line for line in lines if line]
        ),
        "what was typed",
    )


def run(tab: Tab, code: str, seen: Seen) -> None:
    """Writes a snippet and runs it by the keyboard."""

    def by_key() -> None:
        write(tab, code)
        tab.page.keyboard.press("ControlOrMeta+Enter")

    tab.act(by_key, seen, code)


def stop_button(tab: Tab) -> Locator:
    """The lab's own; Streamlit shows one of that name, too."""
    return tab.page.get_by_test_id("stMain").get_by_role("button", name="Stop")


def boxes(tab: Tab) -> list[str]:
    tab.page.locator(".autograd-graph svg g.node").first.wait_for()
    script = """nodes => nodes.map(
        node => [...node.querySelectorAll("text")].map(text => text.textContent).join("|"))"""
    found: list[str] = tab.page.eval_on_selector_all(".autograd-graph svg g.node", script)
    return found


def test_the_square_of_a_sum_reads_6_and_6(tab: Tab) -> None:
    lesson(tab, "chain_rule")
    assert sorted(boxes(tab)) == [
        "s · AddBackward0|value 3|gradient 6",
        "x|value 1|gradient 6",
        "y|value 2|gradient 6",
        "z · PowBackward0|value 9|gradient 1",
    ]
    assert tab.page.locator(".tok-keyword").first.inner_text() == "import"


def test_a_slider_rewrites_the_line_and_the_graph_follows(tab: Tab) -> None:
    lesson(tab, "polynomial")
    tab.page.get_by_role("slider").focus()
    for _ in range(4):
        tab.page.keyboard.press("ArrowLeft")
    tab.page.locator(".cm-line", has_text="start = 1.0").wait_for()
    tab.page.locator("svg g.node", has_text="gradient 4").first.wait_for()
    assert "x|value 1|gradient 4" in boxes(tab)


def test_what_is_typed_runs_by_key_and_by_button(tab: Tab) -> None:
    lesson(tab, "chain_rule")
    run(tab, "print('typed', 6 * 7)", tab.page.get_by_text("typed 42"))
    write(tab, "print('again', 7 * 7)")
    tab.press("Run", tab.page.get_by_text("again 49"))
    assert tab.page.locator(".cm-content").inner_text().strip() == "print('again', 7 * 7)"
    tab.press("Reset", tab.page.locator("svg g.node", has_text="gradient 6"))


def test_typing_goes_on_while_the_page_follows(tab: Tab) -> None:
    lesson(tab, "chain_rule")
    write(tab, "")
    text = "value = 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9"
    tab.page.keyboard.type(text, delay=40)
    tab.page.get_by_text("Changed since it ran.").wait_for()
    assert tab.page.locator(".cm-content").inner_text().strip() == text


def test_an_endless_loop_is_one_sentence_and_the_app_lives(tab: Tab) -> None:
    lesson(tab, "chain_rule", seconds=5)
    run(tab, "while True: pass", stop_button(tab))
    tab.page.get_by_text("The snippet was stopped after 5 seconds").wait_for()
    run(tab, "print('alive', 1 + 1)", tab.page.get_by_text("alive 2"))


def test_a_button_stops_what_runs(tab: Tab) -> None:
    lesson(tab, "chain_rule")
    run(tab, "print('begun', 1, flush=True)\nwhile True: pass", stop_button(tab))
    tab.click(stop_button(tab), tab.page.get_by_text("You stopped the snippet after"))
    tab.page.get_by_text("begun 1").wait_for()
    tab.press("Reset", tab.page.locator("svg g.node", has_text="gradient 6"))


def test_a_result_opens_offline(tab: Tab, chromium: Any, tmp_path: Path) -> None:
    lesson(tab, "clipping")
    file = tab.download(tab.button("HTML page of this result"), tmp_path / "result.html")
    context = chromium.new_context(offline=True)
    page, asked, wrong = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(file.as_uri())
    page.locator("section.graph[data-shown] g.node").first.wait_for()
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [file.as_uri()]
    assert wrong == []
    context.close()


def test_two_gigabytes_are_one_sentence_and_the_app_lives(tab: Tab) -> None:
    lesson(tab, "chain_rule")
    large = "import torch\nx = torch.empty(2 * 1024**3, dtype=torch.uint8)"
    run(tab, large, tab.page.get_by_text("more than the lab's memory limit leaves"))
    assert tab.page.locator(".cm-error-line").inner_text().startswith("x = torch.empty")
    ended = tab.page.get_by_text("ended the Python process itself")
    run(tab, "import os; os._exit(1)", ended)
    run(tab, "print('alive', 2 + 1)", tab.page.get_by_text("alive 3"))


@pytest.mark.parametrize("name", ["optimizers", "clipping", "attention", "heat"])
def test_drawings_are_drawn(tab: Tab, name: str) -> None:
    lesson(tab, name)
    tab.page.locator(".js-plotly-plot .main-svg").first.wait_for()
    tab.page.locator(".autograd-graph svg g.node").first.wait_for()


def test_names_from_a_snippet_are_text(tab: Tab) -> None:
    lesson(tab, "chain_rule")
    code = """import torch
from inspector.lab import lines
bad = "<img src=x onerror=alert(1)>"
net = torch.nn.Module(); net.register_parameter(bad, torch.nn.Parameter(torch.ones(1)))
(net._parameters[bad] * 2).sum().backward()
lines({bad: [1, 2], "b": [2, 1]}, title=bad)
print(bad)"""
    run(tab, code, tab.page.locator(".js-plotly-plot .gtitle", has_text="<img src=x"))
    tab.page.locator("svg g.node", has_text="net.<img src=x").first.wait_for()
    assert tab.page.locator("img[src='x']").count() == 0
