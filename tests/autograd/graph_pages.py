"""The graph page served alone, behind the app's own content security policy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from inspector.autograd import GraphTags, capture_graph
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests import page_server
from tests.app.tab import Tab

if TYPE_CHECKING:
    from playwright.sync_api import Locator

LAID_OUT = 20.0  # seconds that a layout may take

SCRIPT = """
import streamlit as st
from inspector.store.reader import Run
from inspector.ui.graph_page import render
st.set_page_config(layout="wide")
with Run({runs!r} + "/" + st.query_params["run"]) as run:
    render(run)
"""


def record(
    runs: Path, name: str, model: nn.Module, steps: dict[int, Callable[[nn.Module], torch.Tensor]]
) -> None:
    """A run with the graphs of these losses, by step."""
    path = create_run(runs, name, {"kind": "watched", "config": {}})
    writer = Writer(path)
    for step, forward in steps.items():
        model.zero_grad()
        with GraphTags(model, calls=True) as tags:
            loss = forward(model)
        pending = capture_graph(loss, model, step=step, tags=tags)
        loss.backward()
        writer.document("graph", step, pending.finish())
        if pending.torchviz:
            (path / "blobs").mkdir(exist_ok=True)
            text = path / "blobs" / f"graph-{step}.torchviz.dot"
            text.write_text(pending.torchviz, "utf-8")
    writer.close()


def served(folder: Path, runs: Path) -> AbstractContextManager[str]:
    """Address of a server that shows the graph page of ``?run=NAME``."""
    return page_server.served(folder, SCRIPT.format(runs=str(runs)))


def shown(tab: Tab) -> str:
    """Number of the picture that is drawn, or nothing."""
    drawn = tab.page.locator(".autograd-graph[data-shown]")
    return str(drawn.first.get_attribute("data-shown") or "") if drawn.count() else ""


def open_graph(tab: Tab, run: str, more: str = "") -> None:
    tab.visit(f"?run={run}{more}")
    tab.until(lambda: shown(tab), "a picture")


def another_picture(tab: Tab) -> Callable[[], bool]:
    """Whether another picture than that of now is drawn."""
    before = shown(tab)
    return lambda: shown(tab) not in ("", before)


def click_and_wait(tab: Tab, target: Locator) -> None:
    """Clicks, and waits for another picture; a large one takes its time after the script rests."""
    tab.click(target, another_picture(tab), lost=LAID_OUT)


def place(tab: Tab) -> str:
    """Pan and zoom."""
    return str(tab.page.locator(".sheet").evaluate("sheet => sheet.style.transform"))
