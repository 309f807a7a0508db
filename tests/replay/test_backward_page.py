"""The Backward page on a stored recording, on a run without one, and without any run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from streamlit.testing.v1 import AppTest
from torch import nn

from inspector.autograd.calls import ForwardCalls
from inspector.autograd.module_probe import ModuleProbe
from inspector.autograd.replay import BackwardRecording
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.in_process import open_app, read, turn_to


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    model = nn.Sequential(nn.Linear(3, 2), nn.Tanh())
    probe, forward = ModuleProbe(model[0], "0"), ForwardCalls(model)
    loss = model(torch.ones(4, 3)).sum()
    forward.leave()
    recording = BackwardRecording(loss, model, step=7, calls=forward.calls)
    loss.backward()
    document = recording.finish() | {"module_check": probe.finish()}
    writer = Writer(create_run(folder, "recorded", {"kind": "watched", "config": {}}))
    writer.document("backward", 7, document)
    writer.close()
    Writer(create_run(folder, "bare", {"kind": "watched", "config": {}})).close()
    return folder


def opened(folder: Path, **link: str) -> AppTest:
    return turn_to(open_app(folder, **link), "backward")


def test_a_recording_opens_with_its_module_check(runs_dir: Path) -> None:
    app = opened(runs_dir, run="recorded")
    app.button_group(key="replay/source").set_value("run").run()
    assert not app.exception
    assert app.selectbox(key="replay/recorded/step").value == 7
    assert "Module 0 by finite differences" in read(app)
    assert "✓ agrees" in read(app)
    assert list(app.dataframe[0].value["gradient of"]) == ["input 0", "weight", "bias"]
    assert app.query_params["captured"] in ("7", ["7"])


def test_a_run_without_a_recording_says_how_to_get_one(runs_dir: Path) -> None:
    app = opened(runs_dir, run="bare")
    app.button_group(key="replay/source").set_value("run").run()
    assert not app.exception
    assert "No backward pass of this run has been recorded" in read(app)


def test_without_any_run_there_are_still_expressions(tmp_path: Path) -> None:
    app = opened(tmp_path / "none")
    assert app.text_input(key="replay/expression").value == "(x + y)**2"
    app.text_input(key="replay/expression").set_value("x +").run()
    assert any("Expected a Python expression" in str(e.value) for e in app.error)
    app.button_group(key="replay/source").set_value("run").run()
    assert "There is no run yet" in read(app)
