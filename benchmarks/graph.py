"""How long a graph takes from capture to picture, beside torchviz, in one run.

    python benchmarks/graph.py [--chromium /usr/bin/chromium] [--limit 30]

Columns, in seconds: ``capture`` (walk, records and the transfer of the norms), ``picture`` (from a
click in an open tab, through the store's reader, folding, Streamlit and the layout, to the drawn
picture), ``total`` (both), ``torchviz`` (its DOT text) and ``its layout`` (Graphviz on that text:
``dot`` where it is installed, else the bundled Graphviz in Node), ended after ``--limit``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright
from torch import nn
from torchvision.models import resnet152, vit_b_16

from inspector.autograd import GraphTags, capture_graph
from inspector.autograd.torchviz_text import torchviz_dot
from inspector.store.layout import create_run
from inspector.store.writer import Writer

ROOT = Path(__file__).resolve().parents[1]
REPEATS = 3
TARGETS = {"mlp": 0.3, "resnet152": 1.0, "vit_b_16": 1.0, "lstm100": 2.0, "lstm1000": 2.0}

APP = """
import streamlit as st
from inspector.server import assets
app = st.App({script!r}, routes=assets.routes())
"""

SCRIPT = """
import streamlit as st
from inspector.store.reader import Run
from inspector.ui.graph_page import render
st.set_page_config(layout="wide")
for name in {names!r}:
    if st.button(name, key=name):
        st.session_state.run = name
if "run" in st.session_state:
    with Run({runs!r} + "/" + st.session_state.run) as run:
        render(run)
"""


class Unrolled(nn.Module):
    """An LSTM cell called once a time step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.cell = nn.LSTMCell(8, 16)
        self.head = nn.Linear(16, 2)
        self.steps = steps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = c = x.new_zeros(len(x), 16)
        for _ in range(self.steps):
            h, c = self.cell(x, (h, c))
        return self.head(h)


def models() -> dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]]:
    """Constructor and shape of the input, by name."""
    mlp = [nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4)]
    return {
        "mlp": (lambda: nn.Sequential(*mlp), (32, 8)),
        "resnet152": (resnet152, (2, 3, 64, 64)),
        "vit_b_16": (lambda: vit_b_16(image_size=32), (2, 3, 32, 32)),
        "lstm100": (lambda: Unrolled(100), (2, 8)),
        "lstm1000": (lambda: Unrolled(1000), (2, 8)),
    }


def captured(runs: Path, name: str, limit: float) -> tuple[int, float, float | None, float | None]:
    """Nodes, seconds to capture, seconds of torchviz and of its layout; None when it failed."""
    build, shape = models()[name]
    model, x = build(), torch.randn(shape)
    path = create_run(runs, name, {"kind": "watched", "config": {}})
    writer = Writer(path)
    seconds = []
    for step in range(REPEATS):
        with GraphTags(model) as tags:
            loss = model(x).logsumexp(1).mean()
        start = time.perf_counter()
        pending = capture_graph(loss, model, step=step, tags=tags, torchviz=False)
        middle = time.perf_counter()
        loss.backward()
        end = time.perf_counter()
        document = pending.finish()
        seconds.append(middle - start + time.perf_counter() - end)
    writer.document("graph", 0, document)
    writer.close()
    theirs = []
    for _ in range(REPEATS):
        loss = model(x).logsumexp(1).mean()
        start = time.perf_counter()
        text, _ = torchviz_dot(loss, model, nodes=0)
        theirs.append(time.perf_counter() - start)
    nodes, capture = len(document["nodes"]), sorted(seconds)[REPEATS // 2]
    if text is None:
        return nodes, capture, None, None
    return nodes, capture, sorted(theirs)[REPEATS // 2], laid_out(text, limit)


def laid_out(dot: str, limit: float) -> float | None:
    """Seconds of Graphviz on a DOT text; None above the limit or without an engine."""
    if shutil.which("dot"):
        command = ["dot", "-Tsvg"]
    elif shutil.which("node"):
        bundle = ROOT / "inspector/ui/assets/vendor/viz-global.js"
        code = (
            f"require({str(bundle)!r}).instance().then(viz => "
            "viz.render(require('fs').readFileSync(0, 'utf8'), {format: 'svg'}))"
        )
        command = ["node", "-e", code]
    else:
        return None
    start = time.perf_counter()
    try:
        subprocess.run(command, input=dot.encode(), capture_output=True, timeout=limit, check=True)
    except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
        return None
    return time.perf_counter() - start


@contextlib.contextmanager
def served(folder: Path, runs: Path) -> Iterator[str]:
    """Address of a server that shows the graph page of each run at the press of a button."""
    names = list(models())
    (folder / "script.py").write_text(SCRIPT.format(names=names, runs=str(runs)))
    (folder / "app.py").write_text(APP.format(script=str(folder / "script.py")))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = ["headless=true", "fileWatcherType=none", f"port={port}", "address=127.0.0.1"]
    command = [sys.executable, "-m", "streamlit", "run", "app.py", "--runner.postScriptGC=false"]
    command += [f"--server.{option}" for option in options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            for _ in range(400):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2)
                    break
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()


def pictures(address: str, chromium: str) -> dict[str, float]:
    """Seconds from the click to the drawn picture in a tab that has drawn one before."""
    seconds = {}
    with sync_playwright() as playwright:
        args = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=args)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        for name in [
            "mlp",
            *reversed(models()),
        ]:  # the first one warms the tab and is measured last
            start = time.perf_counter()
            page.get_by_role("button", name=name, exact=True).click()
            page.wait_for_selector(f'[data-graph^="{name}-graph"][data-shown]', timeout=60_000)
            seconds[name] = time.perf_counter() - start
        browser.close()
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--limit", type=float, default=30.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = folder / "runs"
        rows = {model: captured(runs, model, options.limit) for model in models()}
        with served(folder, runs) as address:
            drawn = pictures(address, options.chromium)
    print("| model | nodes | capture | picture | total | target | torchviz | its layout |")
    print("|---|---|---|---|---|---|---|---|")
    for model, (nodes, capture, torchviz, layout) in rows.items():
        total = capture + drawn[model]
        theirs = "failed" if torchviz is None else f"{torchviz:.3f}"
        end = (
            "–"
            if torchviz is None
            else f"> {options.limit:g}"
            if layout is None
            else f"{layout:.2f}"
        )
        print(
            f"| {model} | {nodes} | {capture:.3f} | {drawn[model]:.2f} | {total:.2f} "
            f"| {TARGETS[model]} | {theirs} | {end} |"
        )


if __name__ == "__main__":
    main()
