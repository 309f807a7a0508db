"""Training some steps and pausing: the number is the one in the field, not the one drawn last."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.config import RunConfig
from inspector.quantities import SeriesKey
from inspector.store.control import ControlReader
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.in_process import open_app, turn_to


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = create_run(tmp_path, "run", {"kind": "built_in", "config": RunConfig().to_dict()})
    writer = Writer(path)
    for step in range(20):
        writer.append("scalar", step, (SeriesKey("loss"),), [1.0])
    writer.heartbeat(20, "paused")
    writer.flush()
    return path


@pytest.fixture
def app(run: Path) -> AppTest:
    return turn_to(open_app(run.parent, run="run"), "live")


def test_a_number_typed_right_before_the_click_counts(app: AppTest, run: Path) -> None:
    field = next(n for n in app.number_input if n.label == "Steps")
    field.set_value(37)
    next(b for b in app.button if b.label == "steps").click()
    app.run()
    assert not app.exception
    sent = [(command.name, command.value) for command in ControlReader(run).poll()]
    assert sent == [("run_steps", 37)]


def test_a_number_that_cannot_be_is_not_sent(app: AppTest, run: Path) -> None:
    next(n for n in app.number_input if n.label == "Steps").set_value(0)
    next(b for b in app.button if b.label == "steps").click()
    app.run()
    assert ControlReader(run).poll() == []
    assert any("Steps must be 1 or more, but got 0" in str(said.value) for said in app.markdown)
