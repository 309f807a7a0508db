"""A person at the app, in a real browser: start, watch, steer, come back, meet a NaN, stop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import inspector
from tests.app.server import App

pytestmark = pytest.mark.browser
SHORT = 30_000  # milliseconds a person on a busy two-core machine would still wait


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    served = App(tmp_path_factory.mktemp("app") / "runs")
    yield served
    served.close()


class Tab:
    """One browser tab that remembers what went wrong in it."""

    def __init__(self, context: Any, app: App) -> None:
        self.app = app
        self.page = context.new_page()
        self.page.set_default_timeout(SHORT)
        self.errors: list[str] = []
        self.foreign: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", self._note)

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.app.base, "blob:", "data:", "ws://127.0.0.1")):
            self.foreign.append(request.url)

    def step(self) -> int:
        text = self.page.locator(".strip .steps").inner_text()
        return int(re.sub(r"\D", "", text.partition("/")[0]))

    def wait_for_step(self, step: int) -> None:
        self.until(lambda: self.step() >= step)

    def until(self, reached: Callable[[], bool]) -> None:
        """Looks every tenth of a second; the page's security policy forbids Playwright's own."""
        for _ in range(SHORT // 100):
            if reached():
                return
            self.page.wait_for_timeout(100)
        raise AssertionError(f"not reached within {SHORT / 1000:g} s; at step {self.step()}")

    def status(self, word: str) -> None:
        self.page.locator(f".strip .badge:has-text('{word}')").wait_for()

    def chip(self, text: str) -> None:
        self.page.locator(".strip .chip", has_text=re.compile(text)).wait_for()

    def steer(self, button: str) -> None:
        self.page.get_by_test_id("stSidebar").get_by_role("button", name=button).click()

    def go(self, name: str) -> None:
        self.page.get_by_role("link", name=name, exact=True).first.click()


@pytest.fixture(scope="module")
def context(chromium: Any) -> Iterator[Any]:
    made = chromium.new_context(viewport={"width": 1280, "height": 800})
    yield made
    made.close()


@pytest.fixture(scope="module")
def tab(context: Any, app: App) -> Tab:
    opened = Tab(context, app)
    opened.page.goto(app.link)
    return opened


def newest_run(app: App) -> inspector.Run:
    from inspector.store.reader import list_runs

    return inspector.open_run(list_runs(app.runs_dir)[0].path)


def start(tab: Tab) -> None:
    tab.page.get_by_role("button", name="Start", exact=True).click()
    tab.page.wait_for_url("**/live**")
    tab.status("Running")


@pytest.fixture
def running(tab: Tab, app: App) -> None:
    """A run goes on: that of an earlier test, or a new one where a test is asked for alone."""
    if not app.runs_dir.exists() or not any(app.runs_dir.iterdir()):
        start(tab)


def test_start_button_leads_to_moving_charts(tab: Tab) -> None:
    start(tab)
    tab.page.locator("canvas").first.wait_for()
    first = tab.step()
    tab.wait_for_step(first + 20)


@pytest.mark.usefixtures("running")
def test_loss_falls_on_screen(tab: Tab) -> None:
    shown = tab.page.locator(".card", has_text="Loss").first.locator(".legend b").first
    shown.wait_for()
    before = float(shown.inner_text())
    tab.until(lambda: float(shown.inner_text()) < before - 0.05)


@pytest.mark.usefixtures("running")
def test_strip_is_one_row_and_gives_up_what_the_page_shows_elsewhere(tab: Tab) -> None:
    row = tab.page.locator(".strip .row")
    tab.page.locator(".strip .fact", has_text="left").wait_for()
    dropped = tab.page.locator(".strip .dropped", has_text="samples/s")
    tab.page.set_viewport_size({"width": 1060, "height": 800})
    tab.until(lambda: dropped.count() == 1 and not dropped.is_visible())
    for width in (1060, 1280):
        tab.page.set_viewport_size({"width": width, "height": 800})
        tab.until(lambda: row.evaluate("row => row.offsetHeight") < 50)
        tab.page.locator(".strip .fact", has_text="left").wait_for()


@pytest.mark.usefixtures("running")
def test_learning_rate_is_acknowledged_on_screen_and_in_the_run(tab: Tab, app: App) -> None:
    box = tab.page.get_by_label("Learning rate, exactly")
    box.fill("0.2")
    box.press("Enter")
    tab.chip(r"lr\s+0\.2")
    with newest_run(app) as run:
        answers = [e for e in run.events() if e.event.kind == "command_applied"]
        assert (answers[-1].event.name, answers[-1].event.effective) == ("lr", 0.2)
        step = answers[-1].step
        tab.wait_for_step(step + 10)
        rates = run.series("lr", first=step + 1)
        assert rates.values == pytest.approx(0.2)


@pytest.mark.usefixtures("running")
def test_clipping_bounds_the_norm_the_optimizer_receives(tab: Tab, app: App) -> None:
    tab.page.get_by_role("radio", name="norm", exact=True).click()
    threshold = tab.page.get_by_label("Clip above")
    threshold.fill("0.05")
    threshold.press("Enter")
    tab.chip(r"clip.*0\.05")
    with newest_run(app) as run:
        step = run.events()[-1].step
        tab.wait_for_step(step + 12)
        clipped = run.series("clipped_grad_norm", first=step + 2)
        before = run.series("total_grad_norm", first=step + 2)
        assert clipped.values.max() <= 0.05 * 1.001
        assert before.values.max() > clipped.values.max()


@pytest.mark.usefixtures("running")
def test_gradients_pile_up_without_zero_grad(tab: Tab, app: App) -> None:
    tab.page.get_by_text("each step").first.click()
    tab.chip("zero_grad")
    with newest_run(app) as run:
        step = run.events()[-1].step
        tab.wait_for_step(step + 12)
        passes = run.series("backward_passes", first=step + 1).values
        assert passes[-1] >= 10
    tab.page.locator(".strip .fact", has_text="backward passes").wait_for()
    tab.page.get_by_text("each step").first.click()
    with newest_run(app) as run:
        tab.wait_for_step(tab.step() + 10)
        assert run.series("backward_passes").values[-1] == 1


@pytest.mark.usefixtures("running")
def test_reload_and_second_tab_show_the_same_run(tab: Tab, context: Any, app: App) -> None:
    tab.page.reload()
    tab.status("Running")
    before = tab.step()
    second = Tab(context, app)
    second.page.goto(app.base)
    second.page.get_by_role("button", name="Watch it").click()
    second.status("Running")
    assert second.step() >= before
    second.page.close()
    tab.wait_for_step(before + 5)
    assert len(list(app.runs_dir.iterdir())) == 1


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize("name", ["Gradients", "Activations", "Updates"])
def test_heat_map_row_opens_its_history(tab: Tab, name: str) -> None:
    tab.go(name)
    tab.page.get_by_role("heading", name=name, exact=True).wait_for()
    canvas = tab.page.locator(".card canvas").first
    canvas.wait_for()
    box = canvas.bounding_box()
    assert box is not None
    canvas.click(position={"x": box["width"] * 0.6, "y": 10})
    tab.page.get_by_role("heading", level=4).first.wait_for()
    tab.page.locator(".u-over").first.wait_for()


@pytest.mark.usefixtures("running")
def test_modules_page_shows_shapes(tab: Tab) -> None:
    tab.go("Modules")
    tab.page.get_by_test_id("stDataFrame").wait_for()
    tab.page.get_by_text("26,122").first.wait_for()


@pytest.mark.usefixtures("running")
def test_graph_is_captured_and_drawn(tab: Tab) -> None:
    tab.go("Graph")
    tab.page.get_by_role("button", name=re.compile("Capture")).first.click()
    tab.page.locator("svg .node, svg g.node").first.wait_for()


@pytest.mark.usefixtures("running")
def test_pause_single_step_and_stop(tab: Tab, app: App) -> None:
    tab.go("Live")
    tab.steer("Pause")
    tab.status("Paused")
    with newest_run(app) as run:
        before = run.heartbeat.step
        assert tab.step() == before  # the step that waits has not been counted
        tab.steer("1 step")
        tab.wait_for_step(before + 1)
        tab.status("Paused")
        tab.page.wait_for_timeout(500)
        assert tab.step() == before + 1
    tab.steer("Stop")
    tab.status("Stopped")


def test_nan_preset_raises_its_banner_on_every_page(tab: Tab) -> None:
    tab.go("Start")
    tab.page.get_by_test_id("stVerticalBlock").locator(".st-key-card-nan button").first.click()
    tab.page.get_by_role("heading", name=re.compile("Log trap")).wait_for()
    tab.page.get_by_role("button", name="Start", exact=True).click()
    tab.page.wait_for_url("**/live**")
    banner = tab.page.locator(".strip .banner:not([hidden])")
    banner.filter(has_text="score").wait_for(timeout=2 * SHORT)
    assert re.search(r"Step \d+: Non-finite .* of score", banner.inner_text())
    tab.go("Gradients")
    tab.page.locator(".strip .banner:not([hidden])").filter(has_text="score").wait_for()
    tab.go("Live")
    tab.page.locator(".card canvas").first.wait_for()
    tab.steer("Stop")
    tab.status("Stopped")


def test_old_run_opens_from_the_list(tab: Tab, app: App) -> None:
    assert len(list(app.runs_dir.iterdir())) == 2
    first = min(app.runs_dir.iterdir(), key=lambda path: path.stat().st_ctime).name
    tab.page.goto(f"{app.base}/live?run={first}")
    tab.status("Stopped")
    assert tab.step() > 50


def test_nothing_failed_and_nothing_left_this_machine(tab: Tab, app: App) -> None:
    assert tab.errors == []
    assert tab.foreign == []
    assert "Traceback" not in app.log.read_text()
