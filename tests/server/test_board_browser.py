"""The live view as a person sees it: a real server, a real Chromium, a run written meanwhile."""

from __future__ import annotations

import contextlib
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from inspector.events import CommandApplied, NonFinite, RunFinished, RunStarted
from inspector.quantities import SeriesKey
from inspector.server.launch import app_file, free_port
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.tab import AT_ONCE, Tab

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page

pytestmark = pytest.mark.browser

HOSTILE = "<img src=//evil.example/x onerror=alert(1)>"
SCALARS = (SeriesKey("loss"), SeriesKey("lr"), SeriesKey("epoch"))
PARAMETERS = tuple(
    SeriesKey("grad_norm", "parameter", f"{name}.weight") for name in ("first", "middle", HOSTILE)
)


class Server:
    """The app as ``streamlit run app.py`` starts it."""

    def __init__(self, runs_dir: Path) -> None:
        self.runs_dir = runs_dir
        self.port = free_port("127.0.0.1", 0)
        self.start()

    def start(self) -> None:
        environment = os.environ | {
            "TORCH_INSPECTOR_RUNS_DIR": str(self.runs_dir),
            "TORCH_INSPECTOR_TOKEN": "a-token-for-the-tests",
        }
        command = [sys.executable, "-m", "streamlit", "run", str(app_file())]
        self.process = subprocess.Popen(
            [*command, "--server.port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None
        self.lines: list[str] = []
        for line in self.process.stdout:
            self.lines.append(line.strip())
            if "?token=" in line:
                break
        self.link = self.lines[-1]

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("runs"))
    yield made
    made.stop()


@pytest.fixture(scope="module", autouse=True)
def writer(server: Server) -> Iterator[Writer]:
    made = Writer(create_run(server.runs_dir, "demo", {"config": {"lr": 0.1}}))
    made.event(0, RunStarted())
    append(made, 0, 200)
    yield made
    made.close()


class Seen(Tab):
    """A tab that also keeps what was asked for and what was complained about."""

    def __init__(self, page: Page, base: str) -> None:
        super().__init__(page, base)
        self.requests: list[str] = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("dialog", lambda dialog: self.errors.append(dialog.message))
        page.on("console", self._listen)

    def _listen(self, message: ConsoleMessage) -> None:
        # Streamlit looks for its own base path by asking, and the browser reports the 404.
        if message.type == "error" and "404" not in message.text:
            self.errors.append(message.text)


@pytest.fixture
def seen(chromium: Any, server: Server) -> Iterator[Seen]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    made = Seen(context.new_page(), server.link)
    made.visit(server.link)
    yield made
    assert made.errors == []
    assert {url.split("/")[2] for url in made.requests if url.startswith("http")} == {
        f"127.0.0.1:{server.port}"
    }
    context.close()


def append(writer: Writer, first: int, last: int) -> None:
    for step in range(first, last):
        writer.append("scalar", step, SCALARS, [1 / (step + 1), 0.1, step / 100])
        writer.append("parameter", step, PARAMETERS, [1e-4, 1e-2, 1.0])
    writer.heartbeat(last - 1, "running", total_steps=1000)
    assert writer.flush()


def open_page(seen: Seen, page: str) -> Any:
    seen.visit(f"{page}?run=demo")
    return seen.page


def card(page: Any, title: str) -> Any:
    return page.locator(".card", has=page.locator("h3", has_text=title)).first


def test_the_link_comes_last_and_the_token_leaves_the_address_bar(
    seen: Seen, server: Server
) -> None:
    assert server.link == f"http://127.0.0.1:{server.port}/?token=a-token-for-the-tests"
    seen.until(lambda: "token" not in seen.page.url)
    (cookie,) = (
        cookie for cookie in seen.page.context.cookies() if cookie["name"].startswith("torch")
    )
    assert cookie["httpOnly"]


def test_new_points_appear_without_a_reload_and_zoom_stays(seen: Seen, writer: Writer) -> None:
    page = open_page(seen, "live")
    loss = card(page, "Loss")
    loss.locator("b", has_text="0.005").wait_for()  # 1 / 200

    def over(share: float) -> tuple[float, float]:
        plot = loss.locator(".u-over").bounding_box()
        return plot["x"] + plot["width"] * share, plot["y"] + plot["height"] / 2

    def zoom() -> None:
        page.mouse.move(*over(0.2))
        page.mouse.down()
        page.mouse.move(*over(0.6), steps=4)
        page.mouse.up()

    reset = page.get_by_role("button", name="Reset zoom")
    seen.act(zoom, reset, "dragging over a chart")
    canvas = loss.locator("canvas").element_handle()

    append(writer, 200, 250)
    loss.locator("b", has_text="0.004").wait_for()  # 1 / 250
    page.locator(".strip", has_text="step 250 / 1,000").wait_for()
    page.keyboard.press("r")  # Streamlit runs the script again
    append(writer, 250, 500)
    loss.locator("b", has_text="0.002").wait_for()
    seen.rest()
    assert reset.is_visible()
    assert canvas.evaluate("node => node.isConnected")
    seen.act(lambda: page.mouse.dblclick(*over(0.1)), lambda: not reset.is_visible())


def test_a_zoom_fits_the_axis_to_the_lines_in_it_and_covers_nothing(seen: Seen) -> None:
    page = open_page(seen, "live")
    loss = card(page, "Loss")
    loss.locator("canvas").wait_for()

    def over(share: float) -> tuple[float, float]:
        plot = loss.locator(".u-over").bounding_box()
        return plot["x"] + plot["width"] * share, plot["y"] + plot["height"] / 2

    def zoom() -> None:
        page.mouse.move(*over(0.5))
        page.mouse.down()
        page.mouse.move(*over(0.9), steps=4)
        page.mouse.up()

    reset = loss.get_by_role("button", name="Reset zoom")  # in the row of its title
    seen.act(zoom, reset, "dragging over a chart")
    head = loss.locator("header").bounding_box()
    button = reset.bounding_box()
    assert head["y"] <= button["y"]
    assert button["y"] + button["height"] <= head["y"] + head["height"] + 1

    def high() -> bool:  # 1 / step: the greatest of what is shown is at the left
        page.mouse.move(*over(0.03))
        dot = loss.locator(".cursor-dot").first.bounding_box()
        return bool(dot and dot["y"] < over(0)[1])

    seen.until(high, "the dot of the first loss in the upper half")
    seen.act(lambda: reset.click(timeout=AT_ONCE), lambda: not reset.count())


def test_the_epoch_of_a_long_run_is_its_last(seen: Seen, server: Server) -> None:
    with contextlib.closing(Writer(create_run(server.runs_dir, "long", {"config": {}}))) as writer:
        for step in range(4600):
            writer.append("scalar", step, SCALARS[2:], [step / 23])
            assert step % 1000 or writer.flush()
        writer.event(4600, RunFinished())
        writer.heartbeat(4600, "finished", total_steps=4600)
    seen.visit("live?run=long")
    seen.page.locator(".strip .fact", has_text=re.compile("^epoch 200$")).wait_for()


def test_what_is_zero_throughout_stands_on_the_ground(seen: Seen, server: Server) -> None:
    with contextlib.closing(Writer(create_run(server.runs_dir, "zero", {"config": {}}))) as writer:
        for step in range(20):
            writer.append("scalar", step, SCALARS[:1], [0.0])
        writer.event(20, RunFinished())
        writer.heartbeat(20, "finished")
    seen.visit("live?run=zero")
    loss = card(seen.page, "Loss")
    loss.locator("canvas").wait_for()
    plot = loss.locator(".u-over").bounding_box()
    seen.page.mouse.move(plot["x"] + plot["width"] / 2, plot["y"] + plot["height"] / 2)
    dot = loss.locator(".cursor-dot").first
    dot.wait_for()
    assert dot.bounding_box()["y"] > plot["y"] + 0.9 * plot["height"]


def test_what_happens_to_the_run_is_said_at_once_and_as_text(seen: Seen, writer: Writer) -> None:
    page = open_page(seen, "live")
    card(page, "Loss").locator("canvas").wait_for()
    writer.event(300, CommandApplied(command_id="x", name="lr", requested=0.5, effective=0.5))
    writer.event(300, NonFinite(where="activation", module=HOSTILE))
    page.locator(".strip .chip", has_text="lr 0.5").wait_for()
    page.locator(".strip .banner", has_text=HOSTILE).wait_for()
    steps = page.evaluate("() => window.__inspector.paints.length")
    assert steps > 0
    tip = page.locator(".board .tip .event", has_text=HOSTILE)

    def sweep() -> bool:
        plot = card(page, "Loss").locator(".u-over").bounding_box()
        for share in range(40, 80):
            page.mouse.move(plot["x"] + plot["width"] * share / 100, plot["y"] + 60)
            if tip.is_visible():
                return True
        return False

    seen.until(sweep, "the event under the mouse")


@pytest.mark.parametrize("norms", [(1e-38, 1.0, math.inf, 3e38, math.nan, 0.5), (1e-30, 1e30, 0.5)])
def test_infinite_and_extreme_numbers_leave_the_charts_alive(
    seen: Seen, server: Server, norms: tuple[float, ...]
) -> None:
    path = create_run(server.runs_dir, f"wild-{len(norms)}", {"config": {"lr": 0.1}})
    wild = Writer(path)
    keys = (SeriesKey("loss"), SeriesKey("total_grad_norm"), SeriesKey("lr"))
    for step, norm in enumerate(norms):
        wild.append("scalar", step, keys, [norm, norm, 0.1])
    wild.close()
    seen.visit(f"live?run={path.name}")
    card(seen.page, "Gradient norm").locator("b", has_text="0.5").wait_for()
    card(seen.page, "Loss").locator("canvas").wait_for()


def test_a_click_on_a_row_of_the_heat_map_reaches_the_script(seen: Seen) -> None:
    page = open_page(seen, "gradients")
    canvas = page.locator("canvas.matrix")
    seen.until(lambda: canvas.bounding_box()["height"] > 60, "the heat map in its size")

    def click() -> None:
        # The canvas may still move while the page fills: Playwright waits for it to rest.
        box = canvas.bounding_box()
        at = {"x": box["width"] * 0.7, "y": (box["height"] - 22) / 2}
        canvas.click(position=at, timeout=AT_ONCE)

    seen.act(click, page.get_by_role("heading", name="middle", exact=True), "a click on a row")


def test_charts_follow_the_theme_of_the_system(seen: Seen) -> None:
    page = open_page(seen, "live")
    card(page, "Loss").locator("canvas").wait_for()
    colour = "node => getComputedStyle(node).backgroundColor"
    light = card(page, "Loss").evaluate(colour)
    page.emulate_media(color_scheme="dark")
    seen.until(lambda: bool(card(page, "Loss").evaluate(colour) != light))
    card(page, "Loss").locator("canvas").wait_for()


def test_a_restarted_server_is_found_again(seen: Seen, server: Server, writer: Writer) -> None:
    page = open_page(seen, "live")
    card(page, "Loss").locator("canvas").wait_for()
    server.stop()
    page.locator(".notice", has_text="connection to the app is lost").wait_for()
    assert card(page, "Loss").locator("canvas").is_visible()
    server.start()
    page.locator(".notice").wait_for(state="hidden")
    append(writer, 500, 1000)
    card(page, "Loss").locator("b", has_text="0.001").wait_for()
    seen.errors.clear()  # the browser reported every attempt meanwhile
