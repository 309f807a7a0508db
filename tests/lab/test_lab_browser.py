"""The lab in a real Chromium: editor, sliders, accidents, under the app's own security policy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.page_server import served

WAIT_MS = 30_000  # the first run imports torch

pytestmark = pytest.mark.browser

SCRIPT = """
import streamlit as st
st.set_page_config(layout="wide")
from inspector.lab.sandbox import Limits, shared
shared().limits = Limits(seconds=12)
from inspector.ui.lab_page import lab_page
lab_page()
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("lab")
    with served(folder, SCRIPT) as address:
        yield address


@pytest.fixture
def page(chromium: Any) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.refused = []
    page.on(
        "console",
        lambda message: "Content Security" in message.text and page.refused.append(message.text),
    )
    page.on("pageerror", lambda error: page.refused.append(str(error)))
    yield page
    assert page.refused == []
    context.close()


def opened(page: Any, address: str, lesson: str) -> None:
    page.goto(f"{address}/?lesson={lesson}")
    page.locator(".cm-content").wait_for()
    page.get_by_text("Ran in").wait_for()


def write(page: Any, code: str) -> None:
    """Replaces the snippet by typing, as a person does."""
    page.locator(".cm-content").click()
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.insert_text(code)


def boxes(page: Any) -> list[str]:
    page.locator(".autograd-graph svg g.node").first.wait_for()
    script = """nodes => nodes.map(
        node => [...node.querySelectorAll("text")].map(text => text.textContent).join("|"))"""
    found: list[str] = page.eval_on_selector_all(".autograd-graph svg g.node", script)
    return found


def test_the_square_of_a_sum_reads_6_and_6(page: Any, address: str) -> None:
    opened(page, address, "chain_rule")
    assert sorted(boxes(page)) == [
        "s · AddBackward0|value 3|gradient 6",
        "x|value 1|gradient 6",
        "y|value 2|gradient 6",
        "z · PowBackward0|value 9|gradient 1",
    ]
    assert page.locator(".tok-keyword").first.inner_text() == "import"


def test_a_slider_rewrites_the_line_and_the_graph_follows(page: Any, address: str) -> None:
    opened(page, address, "polynomial")
    page.get_by_role("slider").focus()
    for _ in range(4):
        page.keyboard.press("ArrowLeft")
    page.locator(".cm-line", has_text="start = 1.0").wait_for()
    page.locator("svg g.node", has_text="gradient 4").first.wait_for()
    assert "x|value 1|gradient 4" in boxes(page)


def test_what_is_typed_runs_by_key_and_by_button(page: Any, address: str) -> None:
    opened(page, address, "chain_rule")
    write(page, "print('typed', 6 * 7)")
    page.keyboard.press("ControlOrMeta+Enter")
    page.get_by_text("typed 42").wait_for()
    write(page, "print('again', 7 * 7)")
    page.get_by_role("button", name="Run").click()
    page.get_by_text("again 49").wait_for()
    assert page.locator(".cm-content").inner_text().strip() == "print('again', 7 * 7)"
    page.get_by_role("button", name="Reset").click()
    page.locator("svg g.node", has_text="gradient 6").first.wait_for()


def test_typing_goes_on_while_the_page_follows(page: Any, address: str) -> None:
    opened(page, address, "chain_rule")
    write(page, "")
    text = "value = 1 + 2 + 3 + 4 + 5 + 6 + 7 + 8 + 9"
    page.keyboard.type(text, delay=40)
    page.get_by_text("Changed since it ran.").wait_for()
    assert page.locator(".cm-content").inner_text().strip() == text


def test_an_endless_loop_is_one_sentence_and_the_app_lives(page: Any, address: str) -> None:
    opened(page, address, "chain_rule")
    write(page, "while True: pass")
    page.keyboard.press("ControlOrMeta+Enter")
    page.get_by_text("The snippet was stopped after 12 seconds").wait_for()
    write(page, "print('alive', 1 + 1)")
    page.keyboard.press("ControlOrMeta+Enter")
    page.get_by_text("alive 2").wait_for()


def test_a_button_stops_what_runs(page: Any, address: str) -> None:
    opened(page, address, "chain_rule")
    write(page, "print('begun', 1, flush=True)\nwhile True: pass")
    page.keyboard.press("ControlOrMeta+Enter")
    page.get_by_test_id("stMain").get_by_role("button", name="Stop").click()  # not Streamlit's own
    page.get_by_text("You stopped the snippet after").wait_for()
    page.get_by_text("begun 1").wait_for()
    page.get_by_role("button", name="Reset").click()
    page.locator("svg g.node", has_text="gradient 6").first.wait_for()


def test_a_result_opens_offline(page: Any, address: str, chromium: Any, tmp_path: Path) -> None:
    opened(page, address, "clipping")
    with page.expect_download() as saved:
        page.get_by_role("button", name="HTML page of this result").click()
    file = tmp_path / "result.html"
    file.write_bytes(Path(saved.value.path()).read_bytes())
    context = chromium.new_context(offline=True)
    tab, asked, wrong = context.new_page(), [], []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("pageerror", lambda error: wrong.append(str(error)))
    tab.goto(file.as_uri())
    tab.locator("section.graph[data-shown] g.node").first.wait_for()
    tab.locator(".js-plotly-plot .main-svg").first.wait_for()
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [file.as_uri()]
    assert wrong == []
    context.close()


def test_two_gigabytes_are_one_sentence_and_the_app_lives(page: Any, address: str) -> None:
    opened(page, address, "chain_rule")
    write(page, "import torch\nx = torch.empty(2 * 1024**3, dtype=torch.uint8)")
    page.keyboard.press("ControlOrMeta+Enter")
    page.get_by_text("more than the lab's memory limit leaves").wait_for()
    assert page.locator(".cm-error-line").inner_text().startswith("x = torch.empty")
    write(page, "import os; os._exit(1)")
    page.keyboard.press("ControlOrMeta+Enter")
    page.get_by_text("ended the Python process itself").wait_for()
    write(page, "print('alive', 2 + 1)")
    page.keyboard.press("ControlOrMeta+Enter")
    page.get_by_text("alive 3").wait_for()


@pytest.mark.parametrize("lesson", ["optimizers", "clipping", "attention", "heat"])
def test_drawings_are_drawn(page: Any, address: str, lesson: str) -> None:
    opened(page, address, lesson)
    page.locator(".js-plotly-plot .main-svg").first.wait_for()
    page.locator(".autograd-graph svg g.node").first.wait_for()


def test_names_from_a_snippet_are_text(page: Any, address: str) -> None:
    opened(page, address, "chain_rule")
    write(
        page,
        """import torch
from inspector.lab import lines
bad = "<img src=x onerror=alert(1)>"
net = torch.nn.Module(); net.register_parameter(bad, torch.nn.Parameter(torch.ones(1)))
(net._parameters[bad] * 2).sum().backward()
lines({bad: [1, 2], "b": [2, 1]}, title=bad)
print(bad)""",
    )
    page.keyboard.press("ControlOrMeta+Enter")
    page.locator(".js-plotly-plot .gtitle", has_text="<img src=x").wait_for()
    page.locator("svg g.node", has_text="net.<img src=x").first.wait_for()
    assert page.locator("img[src='x']").count() == 0
