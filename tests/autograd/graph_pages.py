"""The graph page served alone, behind the app's own content security policy."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inspector.autograd import GraphTags, capture_graph
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests import page_server

PICTURE_MS = 20_000

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


def open_graph(page: Any, address: str, run: str, more: str = "") -> None:
    page.goto(f"{address}/?run={run}{more}")
    page.wait_for_selector(".autograd-graph[data-shown]", timeout=PICTURE_MS)


def click_and_wait(page: Any, target: Any) -> None:
    """Clicks, and waits for another picture."""
    before = page.locator(".autograd-graph").get_attribute("data-shown")
    target.click()
    page.wait_for_selector(
        f'.autograd-graph[data-shown]:not([data-shown="{before}"])', timeout=PICTURE_MS
    )


def place(page: Any) -> str:
    """Pan and zoom."""
    return str(page.locator(".sheet").evaluate("sheet => sheet.style.transform"))
