"""The steering panel of a run that has ended shows what was in force, not the nearest choice."""

from __future__ import annotations

from pathlib import Path

import pytest

from inspector.events import RunFinished
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.in_process import open_app, turn_to


@pytest.mark.parametrize(
    ("rate", "said"), [(6.85e-8, "6.85e-8"), (0.0012, "0.0012"), (25, "25"), (0, "0")]
)
def test_the_slider_of_an_ended_run_says_its_rate(tmp_path: Path, rate: float, said: str) -> None:
    writer = Writer(create_run(tmp_path, "run", {"config": {}}))
    for step in range(4):
        writer.append("scalar", step, (SeriesKey("loss"), SeriesKey("lr")), [1.0, rate])
    writer.heartbeat(4, "finished")
    writer.event(4, RunFinished())
    writer.close()
    app = turn_to(open_app(tmp_path, run="run"), "events")
    slider = next(one for one in app.select_slider if one.label == "Learning rate")
    assert slider.disabled
    assert slider.value == pytest.approx(rate, rel=1e-6)
    assert said in slider.options
