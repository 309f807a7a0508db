"""How long a graph takes from capture to picture, beside torchviz, torchview and TorchLens.

    python benchmarks/graph.py [--chromium /usr/bin/chromium] [--limit 60] [--write]

Seconds. ``capture``: walk, records and transfer of the norms; median of three. ``picture``: from a
click in an open tab, through the reader, folding, Streamlit and the layout, to the drawn picture;
median of three captures. ``total``: both. Each peer: what it takes to build its graph and, after
the +, to draw it (Graphviz to SVG; where no ``dot`` is installed, the bundled build in Node), once
in a process of its own, ended when build and drawing took ``--limit``. About twelve minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graph_models import MODELS, model_and_input
from graph_peers import PEERS
from playwright.sync_api import sync_playwright

from inspector.autograd import GraphTags, capture_graph
from inspector.store.layout import create_run
from inspector.store.writer import Writer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
DOCS = ROOT / "docs" / "performance.md"
MARKS = ("<!-- graph benchmark -->\n", "<!-- end of graph benchmark -->")
REPEATS = 3
START = 60.0  # seconds for imports and the tiny model, before the limit counts
TARGETS = {"mlp": 0.3, "resnet152": 1.0, "vit_b_16": 1.0, "lstm100": 2.0, "lstm1000": 2.0}
TITLES = {
    "torchviz": "torchviz", "torchview": "torchview", "torchlens-forward": "TorchLens forward",
    "torchlens-backward": "TorchLens backward",
}  # fmt: skip

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


@dataclass(frozen=True)
class Ours:
    nodes: int
    capture: float
    picture: float

    @property
    def total(self) -> float:
        return self.capture + self.picture


def captured(runs: Path, name: str) -> tuple[int, float]:
    """Nodes and seconds to capture; stores the graph in as many runs as pictures are drawn."""
    model, x = model_and_input(name)
    seconds = []
    for number in range(REPEATS):
        with GraphTags(model, calls=True) as tags:
            loss = model(x).logsumexp(1).mean()
        start = time.perf_counter()
        pending = capture_graph(loss, model, step=0, tags=tags, torchviz=False)
        middle = time.perf_counter()
        loss.backward()
        end = time.perf_counter()
        document = pending.finish()
        seconds.append(middle - start + time.perf_counter() - end)
        writer = Writer(create_run(runs, f"{name}-{number}", {"kind": "watched", "config": {}}))
        writer.document("graph", 0, document)
        writer.close()
    return len(document["nodes"]), statistics.median(seconds)


@contextlib.contextmanager
def served(folder: Path, runs: Path) -> Iterator[str]:
    """Address of a server that shows the graph page of each run at the press of a button."""
    names = [f"{name}-{number}" for name in MODELS for number in range(REPEATS)]
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
    seconds: dict[str, list[float]] = {name: [] for name in MODELS}
    with sync_playwright() as playwright:
        args = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=chromium, args=args)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(address)
        show(page, "resnet152-0")  # warms the tab: imports, worker, fonts
        for number in range(REPEATS):
            for name in MODELS:
                seconds[name].append(show(page, f"{name}-{number}"))
        browser.close()
    # A graph that was shown before comes from the cache: the first of each is not its own.
    seconds["resnet152"] = seconds["resnet152"][1:]
    return {name: statistics.median(times) for name, times in seconds.items()}


def show(page: object, run: str) -> float:
    """Clicks a run's button and waits for its picture."""
    start = time.perf_counter()
    page.get_by_role("button", name=run, exact=True).click()  # type: ignore[attr-defined]
    picture = f'[data-graph^="{run}-graph"][data-shown]'
    page.wait_for_selector(picture, timeout=60_000)  # type: ignore[attr-defined]
    return time.perf_counter() - start


def peer(tool: str, model: str, limit: float, folder: Path) -> str:
    """``build + draw`` in seconds, or what became of it."""
    command = [sys.executable, str(HERE / "graph_peers.py"), tool, model]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": _path_with_dot(folder)}
    errors = folder / "errors.txt"
    with errors.open("w") as stderr, subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True
    ) as process:  # fmt: skip
        done = _parts(process, limit)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            failed = False
        else:
            failed = process.returncode != 0
    if failed:
        last = errors.read_text().strip().splitlines()[-1:] or ["it ended"]
        return last[0].partition(":")[0].rpartition(".")[2][:40]
    if "build" not in done:
        return f"> {limit:g}"
    draw = _seconds(done["draw"]) if "draw" in done else f"> {limit:g}"
    return f"{_seconds(done['build'])} + {draw}"


def _parts(process: subprocess.Popen[bytes], limit: float) -> dict[str, float]:
    """What the process reports until it ends, or until the limit after it was ready."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        process.wait()
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    done: dict[str, float] = {}
    deadline = time.monotonic() + START
    with contextlib.suppress(queue.Empty):
        while line := lines.get(timeout=max(deadline - time.monotonic(), 0)):
            with contextlib.suppress(ValueError):
                done |= json.loads(line)
                if "ready" in done and len(done) == 1:
                    deadline = time.monotonic() + limit
    return done


def _seconds(value: float) -> str:
    return f"{value:.3f}" if value < 1 else f"{value:.1f}"


def _path_with_dot(folder: Path) -> str:
    """The PATH, with a stand-in for ``dot`` where there is none."""
    path = os.environ["PATH"]
    if shutil.which("dot"):
        return path
    shim = folder / "bin" / "dot"
    shim.parent.mkdir(exist_ok=True)
    shim.write_text(f'#!/bin/sh\nexec node "{HERE / "dot.cjs"}" "$@"\n')
    shim.chmod(0o755)
    return f"{shim.parent}{os.pathsep}{path}"


def table(ours: dict[str, Ours], theirs: dict[str, dict[str, str]]) -> str:
    """The results as Markdown."""
    names = " | ".join(TITLES[tool] for tool in PEERS)
    lines = [
        f"| model | nodes | capture | picture | **total** | target | {names} |",
        "|---" * (6 + len(PEERS)) + "|",
    ]
    for model, own in ours.items():
        cells = " | ".join(theirs[model][tool] for tool in PEERS)
        lines.append(
            f"| {model} | {own.nodes:,} | {own.capture:.3f} | {own.picture:.2f} "
            f"| **{own.total:.2f}** | ≤ {TARGETS[model]:g} | {cells} |"
        )
    return "\n".join(lines) + "\n"


def write(text: str) -> None:
    """Puts the table between the marks of the documentation."""
    page = DOCS.read_text("utf-8")
    head, _, rest = page.partition(MARKS[0])
    _, _, tail = rest.partition(MARKS[1])
    DOCS.write_text(f"{head}{MARKS[0]}\n{text}\n{MARKS[1]}{tail}", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds for a peer")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument(
        "--write", action="store_true", help="put the table into docs/performance.md"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = folder / "runs"
        walked = {model: captured(runs, model) for model in MODELS}
        with served(folder, runs) as address:
            drawn = pictures(address, options.chromium)
        ours = {model: Ours(*walked[model], drawn[model]) for model in MODELS}
        theirs: dict[str, dict[str, str]] = {}
        for model in options.models:
            theirs[model] = {tool: peer(tool, model, options.limit, folder) for tool in PEERS}
            print(model, ours[model], theirs[model], file=sys.stderr)
    text = table({model: ours[model] for model in options.models}, theirs)
    print(text)
    if options.write:
        write(text)


if __name__ == "__main__":
    main()
