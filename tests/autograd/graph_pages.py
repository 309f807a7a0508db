"""The graph page served alone, behind the app's own content security policy."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from inspector.autograd import GraphTags, capture_graph
from inspector.store.layout import create_run
from inspector.store.writer import Writer

PICTURE_MS = 20_000

APP = """
import streamlit as st
from starlette.middleware import Middleware
from inspector.server import assets, policy

class Headers:
    def __init__(self, app): self.app = app
    async def __call__(self, scope, receive, send):
        async def with_policy(message):
            if message["type"] == "http.response.start":
                message = message | {{"headers": [*message["headers"], *policy.HEADERS]}}
            await send(message)
        await self.app(scope, receive, with_policy if scope["type"] == "http" else send)

app = st.App({script!r}, routes=assets.routes(), middleware=[Middleware(Headers)])
"""

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


@contextlib.contextmanager
def served(folder: Path, runs: Path) -> Iterator[str]:
    """Address of a server that shows the graph page of ``?run=NAME``."""
    (folder / "script.py").write_text(SCRIPT.format(runs=str(runs)))
    (folder / "app.py").write_text(APP.format(script=str(folder / "script.py")))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", f"--server.port={port}",
               "--server.address=127.0.0.1", "--server.headless=true",
               "--server.fileWatcherType=none", "--browser.gatherUsageStats=false"]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL
    ) as server:
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}/_stcore/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def wait_until_healthy(url: str) -> None:
    end = time.monotonic() + 40
    while time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=2):
            return
        time.sleep(0.1)
    raise TimeoutError(url)


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
