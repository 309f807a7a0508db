"""Live view: age of the newest point on screen, missing charts, and what open tabs steal.

One process trains and serves, as the app does; headless Chromium looks at eight line charts of up
to 2,000 points at 4 Hz. Browser, server and training share the machine's cores.

    python benchmarks/ui.py --model cnn --seconds 20 --rounds 3

Demanded: newest point on screen ≤ 100 ms (p95), no chart ever missing, training at ≥ 0.95 of its
tab-free speed with one tab and ≥ 0.85 with four.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import streamlit as st
import torch
from playwright.sync_api import Browser, Page, sync_playwright
from starlette.middleware import Middleware
from torch import nn

import inspector
from inspector.server import assets, launch, live, settings
from inspector.server.gate import Gate

FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
SETTLE_S = 3.0
CHARTS = 8

WATCH_CHARTS = """(wanted) => {
  window.seen = { samples: 0, missing: 0, greyed: 0 }
  const outer = (node) => node.parentElement ?? node.getRootNode().host ?? null
  const opacity = (node) =>
    node ? Number(getComputedStyle(node).opacity) * opacity(outer(node)) : 1
  const isolated = '[data-testid="stBidiComponentIsolated"]'
  setInterval(() => {
    const plots = [...document.querySelectorAll(isolated)]
      .flatMap((host) => [...(host.shadowRoot?.querySelectorAll(".u-wrap canvas") ?? [])])
      .filter((plot) => plot.width > 0 && plot.isConnected)
    window.seen.samples++
    if (plots.length < wanted) window.seen.missing++
    if (plots.some((plot) => opacity(plot) < 0.99)) window.seen.greyed++
  }, 20)
}"""


class Training(threading.Thread):
    """A plain loop under ``inspector.watch``; counts its steps."""

    def __init__(self, model: str, runs_dir: Path) -> None:
        super().__init__(daemon=True)
        self.steps = 0
        self.origin = time.time()
        self.done = threading.Event()
        self._cnn = model == "cnn"
        torch.set_num_threads(1)
        self.model = _cnn() if self._cnn else _mlp()
        self.optimizer = torch.optim.Adam(self.model.parameters())
        self.watch = inspector.watch(
            self.model, self.optimizer, run_dir=str(runs_dir), name="benchmark"
        )

    def run(self) -> None:
        shape = (64, 1, 28, 28) if self._cnn else (64, 64)
        inputs, targets = torch.randn(shape), torch.randint(0, 10, (64,))
        while not self.done.is_set():
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(inputs), targets)
            loss.backward()
            self.watch.record(loss=loss, clock=time.time() - self.origin)
            self.optimizer.step()
            self.steps += 1
        self.watch.close()

    def speed(self, seconds: float) -> float:
        """Steps per second over the coming seconds."""
        before, began = self.steps, time.perf_counter()
        time.sleep(seconds)
        return (self.steps - before) / (time.perf_counter() - began)


def _cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def open_tab(browser: Browser, address: str) -> Page:
    page = browser.new_context(viewport={"width": 1280, "height": 1500}).new_page()
    page.goto(address)
    # The page's security policy forbids eval, which wait_for_function needs.
    deadline = time.monotonic() + 60
    while not page.evaluate("window.__inspector?.paints.length > 2"):
        if time.monotonic() > deadline:
            raise TimeoutError("no chart was painted within a minute")
        page.wait_for_timeout(50)
    return page


def ages(page: Page, training: Training, seconds: float) -> tuple[list[float], dict[str, int]]:
    """Milliseconds between the training thread's clock in the newest point and its painting."""
    page.evaluate(WATCH_CHARTS, CHARTS)
    page.evaluate("window.__inspector.paints.length = 0")
    page.wait_for_timeout(seconds * 1000)
    paints = page.evaluate("window.__inspector.paints")
    found = [1000 * (paint["at"] - training.origin - paint["newest"]["clock"]) for paint in paints
             if paint["wall"] > 0]  # fmt: skip
    return found, page.evaluate("window.seen")


def measure(options: argparse.Namespace, training: Training, address: str) -> dict[str, Any]:
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = open_tab(browser, address)
        time.sleep(SETTLE_S)
        found, seen = ages(page, training, options.seconds)
        page.context.close()
        speeds: dict[str, list[float]] = {"1 tab": [], "4 tabs": [], "4 sockets": []}
        for _ in range(options.rounds):
            for tabs, name in ((1, "1 tab"), (4, "4 tabs")):
                viewers = tabs_of(browser, address, tabs)
                speeds[name].append(ratio(training, options.seconds, *viewers))
            viewers = sockets_of(address, 4, training.watch.run_name)
            speeds["4 sockets"].append(ratio(training, options.seconds, *viewers))
        browser.close()
    found.sort()
    return {
        "model": options.model,
        "updates_per_s": round(len(found) / options.seconds, 2),
        "age_ms": {
            "p50": round(statistics.median(found)),
            "p95": round(found[int(len(found) * 0.95)]),
        },
        "samples": seen["samples"],
        "missing": seen["missing"] / seen["samples"],
        "greyed": seen["greyed"] / seen["samples"],
        "speed": {
            viewers: {
                "median": round(statistics.median(values), 3),
                "rounds": [round(value, 3) for value in values],
            }
            for viewers, values in speeds.items()
            if values
        },
    }


Viewers = tuple[Callable[[], None], Callable[[], None]]  # how they come, how they go


def tabs_of(browser: Browser, address: str, count: int) -> Viewers:
    """Tabs of the browser."""
    pages: list[Page] = []

    def come() -> None:
        pages.extend(open_tab(browser, address) for _ in range(count))

    def go() -> None:
        while pages:
            pages.pop().context.close()

    return come, go


def sockets_of(address: str, count: int, run: str) -> Viewers:
    """Sockets of another process: what the server costs, without what a browser costs."""
    where = urlsplit(address)
    script = str(Path(__file__).with_name("ui_clients.py"))
    arguments = [str(where.port), where.query.partition("=")[2], run, str(count)]
    started: list[subprocess.Popen[bytes]] = []

    def come() -> None:
        started.append(subprocess.Popen([sys.executable, script, *arguments]))

    def go() -> None:
        process = started.pop()
        process.terminate()
        process.wait(10)

    return come, go


def ratio(
    training: Training, seconds: float, come: Callable[[], None], go: Callable[[], None]
) -> float:
    """Speed with viewers over the mean of the speeds without, before and after."""
    before = training.speed(seconds / 2)
    come()
    time.sleep(SETTLE_S)
    during = training.speed(seconds)
    go()
    time.sleep(SETTLE_S)
    after = training.speed(seconds / 2)
    return during / ((before + after) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=("cnn", "mlp"), default="cnn")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    port = launch.free_port("127.0.0.1", None)
    made = settings.configure(settings.Settings(secrets.token_urlsafe(32), folder))
    training = Training(options.model, folder)
    os.environ["BENCHMARK_RUN"] = training.watch.run_name
    address = f"http://127.0.0.1:{port}/?token={made.token}"

    def work() -> None:
        training.start()
        failed = 1
        try:
            sys.stdout.write(json.dumps(measure(options, training, address), indent=2) + "\n")
            failed = 0
        except Exception:
            traceback.print_exc()
        training.done.set()
        training.join(10)
        shutil.rmtree(folder, ignore_errors=True)
        sys.stdout.flush()
        os._exit(failed)  # the server below blocks

    threading.Thread(target=work, daemon=True).start()
    app = st.App(
        Path(__file__).with_name("ui_page.py").resolve(),
        routes=[live.route(lambda: folder), *assets.routes()],
        middleware=[Middleware(Gate, settings=made)],
    )
    sys.argv = [str(Path(__file__).resolve().parent.parent / "app.py")]
    app.run(config={"server.port": port, "server.address": "127.0.0.1"})


if __name__ == "__main__":
    main()
