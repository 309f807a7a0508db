"""The schedule form in words, drawn for the data that was checked; augmentation for images only."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from inspector.config import RunConfig
from inspector.schedules import ARGUMENTS
from inspector.ui.practices.schedule import HELP, LABELS
from tests.app.in_process import picture
from tests.app.test_practice_forms import app, tab

__all__ = ["app"]  # a fixture


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A table of 120 rows in the working folder."""
    monkeypatch.chdir(tmp_path)
    rows = "".join(f"{row},{row % 7},{'ab'[row % 2]}\n" for row in range(120))
    (tmp_path / "points.csv").write_text("x,y,side\n" + rows)
    yield "csv:points.csv"


def load(app: AppTest, data: str, version: int = 1, **settings: Any) -> None:
    """As a preset would: the form is filled with it."""
    config = RunConfig(data=data, **settings)
    app.session_state["draft"] = config
    app.session_state["draft_version"] = version
    app.session_state[f"practices/{version}"] = True
    app.session_state[f"practices/{version}/tab"] = "Schedule"
    app.run()
    assert not app.exception


def captions(app: AppTest) -> str:
    return "\n".join(str(caption.value) for caption in app.caption)


def test_every_argument_has_a_label_and_names_its_setting() -> None:
    names = {name for arguments in ARGUMENTS.values() for name in arguments}
    assert names == set(LABELS) == set(HELP)
    assert not any("_" in label for label in LABELS.values())


def test_fields_are_called_in_words_and_say_what_pytorch_calls_them(app: AppTest) -> None:
    key = "practices/0/Schedule"
    tab(app, "Schedule").selectbox(key=f"{key}/name").select("cosine").run()
    length = app.number_input(key=f"{key}/cosine/T_max")
    assert length.label == "Length of the fall"
    assert length.help.endswith("PyTorch: `T_max`.")
    assert "PyTorch: CosineAnnealingLR." in captions(app)
    unit = app.selectbox(key=f"{key}/cosine/unit")
    assert (unit.label, unit.options) == ("Counted in", ["epochs", "steps"])


def test_a_schedule_is_drawn_for_what_the_check_has_read(app: AppTest, table: str) -> None:
    load(app, table, data_args={"target": "side"}, batch_size=8, epochs=5)
    app.selectbox(key="practices/1/Schedule/name").select("cosine").run()
    assert "Drawn for 100 steps an epoch" in captions(app)
    assert "step 500" in picture(app)
    app.button(key="own/look").click().run()
    assert not app.exception
    assert "Drawn for 100 steps" not in captions(app)
    per_epoch = math.ceil((120 - 24) / 8)
    assert f"step {5 * per_epoch}:" in picture(app)
    app.number_input(key="batch/1").set_value(4).run()  # no other data: no other check
    assert f"step {5 * 2 * per_epoch}:" in picture(app)
    app.slider(key="validation/1").set_value(0.5).run()
    assert "Drawn for 100 steps an epoch" in captions(app)


def test_every_parameter_group_has_a_curve_of_its_own_rate(app: AppTest) -> None:
    groups = [{"modules": ["conv1", "conv2"], "lr": 0.01}, {"modules": ["fc2"], "lr": 0.1}]
    load(app, "digits", model="lenet", lr=0.1, param_groups=groups)
    app.selectbox(key="practices/1/Schedule/name").select("exponential").run()
    drawn = picture(app)
    assert drawn.count("<polyline") == 2  # two of one rate are one
    assert "all others, fc2" in drawn and "conv1, conv2" in drawn
    assert ">0.1 → " in drawn and ">0.01 → " in drawn


def augmentation(app: AppTest) -> bool:
    return any("Augmentation" in str(one.label) for one in app.expander)


def test_augmentation_is_offered_for_images_only(app: AppTest, table: str) -> None:
    assert augmentation(app)
    load(app, table, data_args={"target": "side"})
    assert not augmentation(app)
    load(app, "code:data", version=2, code=TENSORS)
    assert augmentation(app)  # nobody knows yet
    app.button(key="own/look").click().run()
    assert not app.exception
    assert not augmentation(app)


def test_transforms_that_came_with_other_data_can_be_taken_out(app: AppTest, table: str) -> None:
    load(app, table, data_args={"target": "side"}, augment=[{"name": "RandomErasing"}])
    assert augmentation(app)
    app.session_state["augment/1"] = True
    app.run()
    assert any("no images" in str(warning.value) for warning in app.warning)


TENSORS = """import torch
from torch.utils.data import TensorDataset


def data():
    return TensorDataset(torch.randn(40, 3), torch.arange(40) % 2)
"""
