"""The steering panel of a run that has ended shows what was in force, not the nearest choice."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.events import RunFinished
from inspector.quantities import SeriesKey
from inspector.server.settings import Settings, configure
from inspector.store.layout import create_run
from inspector.store.writer import Writer

ROOT = Path(__file__).resolve().parents[2]


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
    configure(Settings(token="t" * 32, runs_dir=tmp_path))
    app = AppTest.from_file(str(ROOT / "inspector" / "ui" / "script.py"), default_timeout=60)
    app.query_params["run"] = "run"
    app.run().switch_page("../../pages/events.py").run()
    slider = next(one for one in app.select_slider if one.label == "Learning rate")
    assert slider.disabled
    assert slider.value == pytest.approx(rate, rel=1e-6)
    assert said in slider.options
