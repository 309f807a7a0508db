"""A person at the app, in a real browser: start, watch, steer, come back, pause, stop."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import inspector
from tests.app.server import App
from tests.app.tab import AT_ONCE, Tab

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def going(tab: Tab) -> str:
    """Name of the run of the first screen, made longer than all these tests take."""
    tab.unfold("Choose model, data and optimizer", tab.page.get_by_label("Epochs", exact=True))
    tab.fill("Epochs", "2000", tab.page.get_by_text("2000 epochs"))
    return tab.start()


@pytest.fixture
def run(going: str, app: App) -> Iterator[inspector.Run]:
    with inspector.open_run(going, app.runs_dir) as opened:
        yield opened


@pytest.mark.usefixtures("going")
def test_start_button_leads_to_moving_charts(tab: Tab) -> None:
    tab.status("Running")
    tab.page.locator("canvas").first.wait_for()
    first = tab.step()
    tab.wait_for_step(first + 20)


@pytest.mark.usefixtures("going")
def test_loss_falls_on_screen(tab: Tab) -> None:
    shown = tab.page.locator(".card", has_text="Loss").first.locator(".legend b").first
    tab.until(lambda: re.search(r"\d", shown.inner_text()), "a loss")
    before = float(shown.inner_text())
    tab.until(lambda: float(shown.inner_text()) < before - 0.05)


@pytest.mark.usefixtures("going")
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


def test_learning_rate_is_acknowledged_on_screen_and_in_the_run(
    tab: Tab, run: inspector.Run
) -> None:
    tab.fill("Learning rate, exactly", "0.2", tab.chip(r"lr\s+0\.2"))
    answers = [e for e in run.events() if e.event.kind == "command_applied"]
    assert (answers[-1].event.name, answers[-1].event.effective) == ("lr", 0.2)
    step = answers[-1].step
    tab.wait_for_step(step + 10)
    rates = run.series("lr", first=step + 1)
    assert rates.values == pytest.approx(0.2)


def test_clipping_bounds_the_norm_the_optimizer_receives(tab: Tab, run: inspector.Run) -> None:
    tab.pick("norm")
    tab.fill("Clip above", "0.05", tab.chip(r"clip.*0\.05"))
    step = run.events()[-1].step
    tab.wait_for_step(step + 12)
    clipped = run.series("clipped_grad_norm", first=step + 2)
    before = run.series("total_grad_norm", first=step + 2)
    assert clipped.values.max() <= 0.05 * 1.001
    assert before.values.max() > clipped.values.max()


def test_gradients_pile_up_without_zero_grad(tab: Tab, run: inspector.Run) -> None:
    each_step = tab.page.get_by_text("each step").first
    tab.click(each_step, tab.chip("zero_grad"))
    step = run.events()[-1].step
    tab.wait_for_step(step + 12)
    passes = run.series("backward_passes", first=step + 1).values
    assert passes[-1] >= 10
    tab.page.locator(".strip .fact", has_text="backward passes").wait_for()
    tab.click(each_step, lambda: tab.chip("zero_grad").count() == 0)
    tab.wait_for_step(tab.step() + 10)
    assert run.series("backward_passes").values[-1] == 1


def test_reload_and_second_tab_show_the_same_run(tab: Tab, app: App, going: str) -> None:
    runs = sorted(app.runs_dir.iterdir())
    tab.visit(tab.page.url)
    tab.status("Running")
    before = tab.step()
    second = Tab(tab.page.context.new_page(), app.base)
    second.visit("")
    second.press("Watch it", lambda: second.is_at("/live"))
    second.until(lambda: second.run() == going, "the same run")
    second.status("Running")
    assert second.step() >= before
    second.page.close()
    tab.wait_for_step(before + 5)
    assert sorted(app.runs_dir.iterdir()) == runs


@pytest.mark.usefixtures("going")
@pytest.mark.parametrize("name", ["Gradients", "Activations", "Updates"])
def test_heat_map_row_opens_its_history(tab: Tab, name: str) -> None:
    tab.go(name)
    tab.page.get_by_role("heading", name=name, exact=True).wait_for()
    canvas = tab.page.locator(".card canvas").first
    canvas.wait_for()
    box = canvas.bounding_box()
    assert box is not None
    history = tab.page.get_by_test_id("stMain").get_by_role("heading", level=4)
    row = {"x": box["width"] * 0.6, "y": 10.0}
    tab.act(lambda: canvas.click(position=row, timeout=AT_ONCE), history, "a click on a row")
    tab.page.locator(".u-over").first.wait_for()


@pytest.mark.usefixtures("going")
def test_modules_page_shows_shapes(tab: Tab) -> None:
    tab.go("Modules")
    tab.page.get_by_test_id("stDataFrame").wait_for()
    tab.page.get_by_text("26,122").first.wait_for()


@pytest.mark.usefixtures("going")
def test_graph_is_captured_and_drawn(tab: Tab, app: App) -> None:
    tab.go("Graph")
    capture = tab.page.get_by_test_id("stMain").get_by_role("button", name=re.compile("Capture"))
    tab.command(app, capture.first)
    tab.page.locator("svg .node, svg g.node").first.wait_for()


def test_pause_single_step_and_stop(tab: Tab, app: App, run: inspector.Run) -> None:
    tab.go("Live")
    tab.command(app, tab.steering("Pause"))
    tab.status("Paused")
    before = run.heartbeat.step
    tab.until(lambda: tab.step() == before, "the step that waits not counted")
    tab.command(app, tab.steering("1 step"))
    tab.wait_for_step(before + 1)
    tab.status("Paused")
    tab.until(lambda: run.heartbeat.step == before + 1, "one step")
    assert tab.step() == before + 1
    tab.stop()


def test_a_run_that_is_over_opens_by_its_link(tab: Tab, run: inspector.Run) -> None:
    tab.go("Start")
    tab.visit(f"live?run={run.path.name}")
    tab.status("Stopped")
    tab.wait_for_step(50)


def test_nothing_failed_and_nothing_left_this_machine(tab: Tab, app: App) -> None:
    assert tab.errors == []
    assert tab.foreign == []
    assert "Traceback" not in app.log.read_text()
