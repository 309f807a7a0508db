"""A heat map in a real browser: when something was measured, and what its rows are called."""

from __future__ import annotations

import math

import pytest

from inspector.events import RunFinished, RunStarted
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.server import App
from tests.app.tab import Tab

pytestmark = pytest.mark.browser

# Where the columns of the first row begin, where magenta begins, and where it ends, in pixels.
EDGES = """canvas => {
  const line = canvas.getContext("2d").getImageData(0, 5, canvas.width, 1).data
  const colour = (x) => line.slice(4 * x, 4 * x + 4).join()
  const places = [...Array(canvas.width).keys()]
  const magenta = places.filter((x) => colour(x) === "255,0,200,255")
  return [places.find((x) => line[4 * x + 3] > 0), magenta[0], magenta.at(-1)]
}"""
SHORTENED = """async ([path, most]) => {
  const { abbreviated } = await import("/assets-inspector/format.js")
  return abbreviated(path, (text) => text.length <= most)
}"""


def record(app: App, name: str, rows: dict[int, float]) -> None:
    """A run of 200 steps that has ended, in which gradients were measured at a few steps."""
    writer = Writer(create_run(app.runs_dir, name, {"config": {}}))
    writer.event(0, RunStarted())
    keys = (SeriesKey("grad_norm", "parameter", "first.weight"),)
    for step in range(200):
        writer.append("scalar", step, (SeriesKey("loss"),), [1.0])
        if step in rows:
            writer.append("parameter", step, keys, [rows[step]])
    writer.heartbeat(200, "finished", total_steps=200)
    writer.event(200, RunFinished())
    writer.close()


def test_a_nan_is_coloured_from_the_step_at_which_it_was_measured_to_the_end(
    tab: Tab, app: App
) -> None:
    record(app, "late-nan", {0: 1.0, 1: 1.0, 2: 1.0, 100: math.nan})
    tab.visit("gradients?run=late-nan")
    canvas = tab.page.locator("canvas.matrix")

    def begins() -> float:
        """Where the NaN begins, as a share of what is drawn, once that reaches the run's end."""
        begin, first, last = canvas.evaluate(EDGES)
        whole = first is not None and last > canvas.evaluate("canvas => canvas.width") - 6
        return float((first - begin) / (last - begin)) if whole else -1.0

    # Measured at step 100 of 200: not in the steps before, of which 3 to 99 were not measured, and
    # to the end, though it was measured no more.
    tab.until(lambda: abs(begins() - 0.5) < 0.02, "a NaN that begins at half of the run")
    box = canvas.bounding_box()
    assert box is not None
    tab.page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 30)
    tab.until(tab.page.get_by_text("measured at step 100"))


def test_long_module_paths_keep_what_tells_them_apart(tab: Tab) -> None:
    path = "pretrained_backbone.layer2.12.blocks.3.projection"

    def shortened(most: int) -> str:
        return str(tab.page.evaluate(SHORTENED, [path, most]))

    assert shortened(80) == path
    assert shortened(30) == "p.l2.12.blocks.3.projection"
    assert shortened(22) == "p.l2.12.b.3.projection"
