"""The forms for augmentation and metrics, and the confusion matrix on the Live page."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.config import RunConfig
from inspector.store.reader import Run
from inspector.training import runner
from tests.app.in_process import draft, open_app, turn_to


@pytest.fixture
def form(tmp_path: Path) -> AppTest:
    """The Start page with the form of augmentation open."""
    app = turn_to(open_app(tmp_path), "start")
    app.session_state["augment/0"] = True
    return app.run()


def add(app: AppTest, name: str) -> None:
    app.selectbox(key="augment/0/name").set_value(name).run()
    app.button(key="augment/0/add").click().run()


def test_transforms_are_added_set_moved_and_removed(form: AppTest) -> None:
    add(form, "RandomRotation")
    add(form, "RandomErasing")
    assert not form.exception
    turn, erase = {"name": "RandomRotation", "degrees": 10}, {"name": "RandomErasing"}
    assert draft(form).augment == [turn, erase]
    pictures = form.get("image")
    assert len(pictures) == 8  # four samples: before, and the draws after
    form.number_input(key="augment/0/1/p").set_value(0.9).run()
    assert draft(form).augment == [turn, {"name": "RandomErasing", "p": 0.9}]
    form.button(key="augment/0/1/arrow_upward").click().run()
    assert draft(form).augment == [{"name": "RandomErasing", "p": 0.9}, turn]
    form.button(key="augment/0/1/close").click().run()
    assert draft(form).augment == [turn]
    form.text_input(key="augment/0/0/degrees").set_value("[-90, 90]").run()
    assert draft(form).augment == [{"name": "RandomRotation", "degrees": [-90, 90]}]


def test_metrics_of_the_task_are_offered(tmp_path: Path) -> None:
    app = turn_to(open_app(tmp_path), "start")
    key = next(one.key for one in app.multiselect if one.key.endswith("/metrics"))
    box = app.multiselect(key=key)
    assert box.options == ["f1", "precision", "recall", "auroc", "confusion_matrix"]
    box.set_value(["f1", "confusion_matrix"]).run()
    assert draft(app).metrics == ["f1", "confusion_matrix"]


def test_the_confusion_matrix_is_on_the_live_page(tmp_path: Path) -> None:
    config = RunConfig(data="two_moons", steps=30, metrics=["confusion_matrix"])
    name = runner.start(config, tmp_path)
    assert runner.join(60)
    app = turn_to(open_app(tmp_path, run=name), "live")
    assert not app.exception
    assert any("Confusion matrix" in one.value for one in app.markdown)
    (chart,) = app.get("plotly_chart")
    (drawn,) = json.loads(chart.proto.spec)["data"]
    with contextlib.closing(Run(tmp_path / name)) as run:
        counts = (run.document("confusion_matrix") or {})["counts"]
    assert drawn["x"] == drawn["y"] == ["upper", "lower"]
    assert drawn["hovertext"] == counts
    assert drawn["text"] == [[str(count or "") for count in row] for row in counts]
    assert drawn["z"][0] == [count / sum(counts[0]) for count in counts[0]]
