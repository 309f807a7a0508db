"""What stands below a heat map: short names, and no picture of one step over steps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from inspector.events import RunFinished
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.in_process import open_app, read, turn_to

MODULE = "a_backbone.stages.3.projection"
NAMES = (f"{MODULE}.weight", f"{MODULE}.bias")


def detail(folder: Path, histograms: int) -> AppTest:
    """The Gradients page of a run that has ended, with the module's row open."""
    writer = Writer(create_run(folder, "run", {"config": {}}))
    keys = tuple(SeriesKey("grad_norm", "parameter", name) for name in NAMES)
    for step in range(4):
        writer.append("scalar", step, (SeriesKey("loss"),), [1.0])
        writer.append("parameter", step, keys, [1.0, 2.0])
    for step in range(histograms):
        writer.histogram(step, "gradient", NAMES[0], -1.0, 1.0, np.ones(8, np.int64))
    writer.heartbeat(4, "finished")
    writer.event(4, RunFinished())
    writer.close()
    app = open_app(folder, run="run")
    app.session_state["Gradients/run/row"] = MODULE
    return turn_to(app, "gradients")


@pytest.mark.parametrize(("histograms", "drawn"), [(1, 1), (2, 2)])
def test_one_histogram_is_not_drawn_over_steps(tmp_path: Path, histograms: int, drawn: int) -> None:
    assert len(detail(tmp_path, histograms).get("plotly_chart")) == drawn


def test_parameters_are_named_within_their_module(tmp_path: Path) -> None:
    groups = detail(tmp_path, 0).button_group
    (choice,) = (group for group in groups if group.key == f"parameter/{MODULE}")
    assert list(choice.options) == ["weight", "bias"]


def test_an_ended_run_without_histograms_promises_none(tmp_path: Path) -> None:
    assert "No histogram was taken" in read(detail(tmp_path, 0), "caption")
