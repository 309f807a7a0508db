"""Pages of a compiled run say why there is nothing to see inside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.config import RunConfig
from inspector.training import runner
from tests.app.in_process import open_app, read, turn_to


@pytest.fixture
def app(tmp_path: Path) -> AppTest:
    runner.start(RunConfig(compile="eager", steps=6, torch_threads=1), tmp_path, name="good")
    assert runner.join(120)
    return open_app(tmp_path, run="good")


def test_activations_name_the_reason_and_gradients_are_shown(app: AppTest) -> None:
    said = read(turn_to(app, "activations"), "info")
    assert "Outputs of modules are not seen. Compiled code runs without module hooks." in said
    assert "a built-in run with compile off" in said
    assert "not seen" not in read(turn_to(app, "gradients"), "info")
