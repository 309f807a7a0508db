"""The steering panel's practices: what is sent, what is shown until the answer, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from inspector.commands import Controls
from inspector.config import RunConfig
from inspector.events import CommandApplied, CommandRefused
from inspector.quantities import SeriesKey
from inspector.store.control import ControlReader
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer
from inspector.ui.panel import Panel
from inspector.views.state import StateKeeper
from tests.app.in_process import open_app, picture, turn_to

KEYS = (SeriesKey("loss"), SeriesKey("lr"), SeriesKey("epoch"))
MODULES = [
    {"path": path, "type": kind, "parameters": count}
    for path, kind, count in (("", "Net", 9), ("body", "Linear", 8), ("norm", "BatchNorm1d", 1),
                              ("drop", "Dropout", 0))
]  # fmt: skip


class Going:
    """A run that is going, as its trainer writes it."""

    def __init__(self, folder: Path, kind: str) -> None:
        config = RunConfig(lr=0.1).to_dict() if kind == "built_in" else {}
        self.path = create_run(folder, "run", {"kind": kind, "config": config})
        self.writer = Writer(self.path)
        for step in range(20):
            row = np.array([1.0, 0.1, (step + 1) / 10], np.float32)
            self.writer.append("run", step, KEYS, row)
        self.writer.document("modules", 0, {"modules": MODULES})
        self.writer.heartbeat(20, "running", total_steps=200)
        self.writer.flush()
        self._commands = ControlReader(self.path)

    def close(self) -> None:
        self._commands.close()
        self.writer.close()

    def poll(self) -> list[Any]:
        return list(self._commands.poll())

    def sent(self) -> Any:
        (command,) = self.poll()
        return command

    def answers(self, command: Any, value: Any = None, *, refused: str = "") -> None:
        name = command.control or command.name
        if refused:
            event: Any = CommandRefused(command_id=command.id, name=name, reason=refused)
        else:
            event = CommandApplied(command_id=command.id, name=name, effective=value)
        self.writer.event(20, event)
        self.writer.flush()


@pytest.fixture
def kind() -> str:
    return "built_in"


@pytest.fixture
def run(tmp_path: Path, kind: str) -> Iterator[Going]:
    made = Going(tmp_path, kind)
    yield made
    made.close()


@pytest.fixture
def app(run: Going) -> AppTest:
    made = open_app(run.path.parent, run="run").run()
    for part in ("Schedule", "Freeze, eval mode", "more"):
        made.session_state[f"steer/run/{part}"] = True
    return turn_to(made, "live")


def captions(app: AppTest) -> list[str]:
    return [
        str(text.value) for kind in (app.sidebar.caption, app.sidebar.markdown) for text in kind
    ]


def shown(app: AppTest, kind: str, widget: str) -> Any:
    """A control as it is drawn now: each value that was not chosen here has a widget of its own."""
    return getattr(app, kind)(key=app.session_state[f"steer/run/{widget}/drawn"])


def test_schedule_is_drawn_ahead_and_switched_when_the_run_answers(
    app: AppTest, run: Going
) -> None:
    assert "In force: constant." in captions(app)
    app.selectbox(key="steer/run/schedule/constant").select("cosine").run()
    drawn = picture(app)
    assert "<polyline" in drawn
    assert "step 20: 0.1" in drawn
    app.button(key="steer/run/schedule/switch").click().run()
    command = run.sent()
    assert (command.name, command.control) == ("set", "schedule")
    assert command.value == {"name": "cosine"}
    assert app.button(key="steer/run/schedule/switch").label == "Waiting for the step …"
    run.answers(command, {"name": "cosine", "T_max": 180, "eta_min": 0.0, "unit": "step"})
    app.run()
    assert "In force: cosine." in captions(app)
    assert app.button(key="steer/run/schedule/switch").label == "Switch"


def test_a_browser_that_lags_behind_a_schedule_does_not_set_the_rate(
    app: AppTest, run: Going
) -> None:
    effective = {"name": "cosine", "T_max": 180, "eta_min": 0.0, "unit": "step"}
    run.writer.event(20, CommandApplied(command_id="x", name="schedule", effective=effective))
    run.writer.flush()
    app.run()
    box = app.text_input(key="steer/run/lr_typed")
    for step, rate in ((20, 0.09), (21, 0.07)):
        run.writer.append("run", step, KEYS, np.array([1.0, rate, 2.0], np.float32))
        run.writer.flush()
        app.run()
        box.run()  # reports what it was shown before
    assert run.poll() == []
    box = app.text_input(key="steer/run/lr_typed")
    assert (box.value, box.label) == ("", "Learning rate, **0.07** now")
    box.set_value("much").run()
    assert ":small[:red[Expected a number such as 0\\.01, but got much\\.]]" in captions(app)
    app.text_input(key="steer/run/lr_typed").set_value("0.02").run()
    assert not any("Expected a number" in caption for caption in captions(app))
    command = run.sent()
    assert (command.control, command.value) == ("lr", 0.02)
    run.answers(command, 0.02)
    app.run()
    assert run.poll() == []


@pytest.mark.parametrize(
    ("widget", "bad", "sentence", "good"),
    [
        ("lr", -1.0, "lr must be 0 or greater, but got -1.", 0.5),
        ("accumulate", 0, "accumulate must be a whole number of passes, 1 or more, but got 0.", 4),
        ("weight_decay", -2.0, "weight_decay must be 0 or greater, but got -2.", 0.01),
    ],
)
def test_a_number_that_cannot_be_used_is_not_sent_and_says_why(
    app: AppTest, run: Going, widget: str, bad: float, sentence: str, good: float
) -> None:
    def said() -> list[str]:
        return [text.replace("\\", "") for text in captions(app)]

    before = shown(app, "number_input", widget).value
    shown(app, "number_input", widget).set_value(bad).run()
    wanted = f":small[:red[{sentence} Nothing was changed; enter another number.]]"
    assert wanted in said()
    assert run.poll() == []
    assert shown(app, "number_input", widget).value == before
    shown(app, "number_input", widget).set_value(good).run()
    assert run.sent().value == good
    assert wanted not in said()


def test_steps_below_one_cannot_be_asked_for(app: AppTest, run: Going) -> None:
    app.number_input(key="steer/run/count").set_value(0).run()
    assert ":small[:red[Steps must be 1 or more, but got 0; enter another number\\.]]" in captions(
        app
    )
    assert app.button(key="steer/run/many").disabled
    app.number_input(key="steer/run/count").set_value(3).run()
    app.button(key="steer/run/many").click().run()
    assert run.sent().value == 3


@pytest.mark.usefixtures("app")
def test_the_first_report_of_a_new_widget_is_no_change(
    run: Going, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where two drawings overlap, Streamlit does not know a widget yet when the browser reports the
    # value that it was drawn with, and takes that for a change.
    state: dict[str, Any] = {}
    monkeypatch.setattr(st, "session_state", state)
    with Run(run.path) as reader:
        drawn = Panel(reader, Controls(), {}, disabled=False)
        key = drawn.prepare("lr", 0.09)
        drawn.prepare("lr_slider", 0.1)
        drawn.changed("lr", "lr")
        assert run.poll() == []
        for value in (0.02, 0.09):  # there, and back before the answer
            state[key] = value
            drawn.changed("lr", "lr")
            drawn.changed("lr_slider", "lr")
            assert run.sent().value == value


def test_frozen_modules_are_chosen_among_those_with_weights(app: AppTest, run: Going) -> None:
    field = app.multiselect(key="steer/run/frozen")
    assert field.options == ["body", "norm"]
    field.select("body").run()
    command = run.sent()
    assert (command.control, command.value) == ("frozen", ["body"])
    run.answers(command, ["body"])
    app.run()
    assert app.multiselect(key="steer/run/frozen").value == ["body"]


def test_a_refused_change_snaps_back_and_says_why(app: AppTest, run: Going) -> None:
    app.multiselect(key="steer/run/frozen").select("body").run()
    run.answers(run.sent(), refused="Freezing body would leave nothing to train.")
    app.run()
    assert shown(app, "multiselect", "frozen").value == []
    assert any("nothing to train" in str(toast.value) for toast in app.toast)


def test_eval_mode_offers_types_that_behave_differently_in_it(app: AppTest, run: Going) -> None:
    field = app.multiselect(key="steer/run/eval_modules")
    assert field.options == ["BatchNorm1d", "Dropout", "norm", "drop"]
    field.select("Dropout").run()
    assert run.sent().value == ["Dropout"]


def test_accumulation_and_checkpoint_are_sent(app: AppTest, run: Going) -> None:
    app.number_input(key="steer/run/accumulate").set_value(4).run()
    assert (lambda sent: (sent.control, sent.value))(run.sent()) == ("accumulate", 4)
    app.button(key="steer/run/checkpoint").click().run()
    assert run.sent().name == "checkpoint"


@pytest.mark.parametrize("kind", ["watched"])
def test_a_watched_script_shows_what_it_decides_itself(app: AppTest) -> None:
    assert any("Your own script decides this" in text for text in captions(app))
    assert app.selectbox(key="steer/run/schedule/constant").disabled
    assert app.number_input(key="steer/run/accumulate").disabled
    assert app.button(key="steer/run/checkpoint").disabled
    assert not app.multiselect(key="steer/run/frozen").disabled


def test_practices_in_force_have_a_chip_in_the_strip(run: Going) -> None:
    for name, value in (
        ("schedule", {"name": "warmup_cosine", "warmup_steps": 18}),
        ("accumulate", 4),
        ("frozen", ["body", "norm", "head"]),
        ("eval_modules", ["Dropout"]),
    ):
        run.writer.event(20, CommandApplied(command_id=name, name=name, effective=value))
    run.writer.flush()
    keeper = StateKeeper()
    with Run(run.path) as opened:
        keeper.take(opened.events())
        chips = dict(keeper.state(opened).controls)
    assert chips == {
        "schedule": "warmup cosine",
        "accumulate": "4 passes",
        "frozen": "body, norm, …",
        "eval mode": "Dropout",
    }


def group(title: str, **settings: float) -> dict[str, Any]:
    return {"title": title, "parameters": 1, **settings}


@pytest.mark.parametrize("kind", ["watched"])
def test_a_setting_of_one_group_is_sent_with_its_address(app: AppTest, run: Going) -> None:
    assert not [box for box in app.selectbox if box.label == "Settings of"]
    groups = [group("group 0 · body", lr=0.1, momentum=0.9, weight_decay=0.0),
              group("group 1 · head", lr=0.3, momentum=0.5, weight_decay=0.01)]  # fmt: skip
    told = {"step": 0, "optimizers": [{"type": "SGD", "title": "SGD", "groups": groups}]}
    run.writer.document("optimizers", 0, told)
    run.writer.flush()
    app.run()
    assert any(r"0\.1, group 1 · head 0\.3" in text for text in captions(app))
    app.selectbox(key="steer/run/place").select("0/1").run()
    assert not any("Scaled together" in text for text in captions(app))
    momentum = shown(app, "slider", "momentum/0/1")
    assert (momentum.label, momentum.value) == (r"Momentum (Adam: β₁) of group 1 · head", 0.5)
    momentum.set_value(0.7).run()
    command = run.sent()
    assert (command.control, command.value, command.target) == ("momentum", 0.7, "0/1")
    shown(app, "number_input", "lr/0/1").set_value(0.04).run()
    command = run.sent()
    assert (command.control, command.value, command.target) == ("lr", 0.04, "0/1")
    run.answers(command, refused="SGD said no.")
    app.run()
    assert [one.value for one in app.toast] == [r"lr refused\: SGD said no\."]
    assert shown(app, "number_input", "lr/0/1").value == 0.3  # as it was
    app.segmented_control(key=app.session_state["steer/run/clip/drawn"]).select("norm").run()
    assert run.sent().target == ""


@pytest.mark.parametrize("kind", ["watched"])
def test_the_rate_of_a_group_that_a_schedule_moves_is_typed(app: AppTest, run: Going) -> None:
    groups = [group("group 0", lr=0.1), group("group 1", lr=0.3)]
    told = {"step": 0, "optimizers": [{"type": "SGD", "title": "SGD", "groups": groups}]}
    run.writer.document("optimizers", 0, told)
    for step in range(10):
        row = np.array([0.3 - 0.01 * step], np.float32)
        run.writer.append("more", step, (SeriesKey("lr/group 1"),), row)
    run.writer.flush()
    app.run()
    app.selectbox(key="steer/run/place").select("0/1").run()
    typed = app.text_input(key="steer/run/lr_typed/0/1")
    assert typed.label == "Learning rate, **0.21** now"
    typed.set_value("0.5").run()
    command = run.sent()
    assert (command.control, command.value, command.target) == ("lr", 0.5, "0/1")


def test_the_rate_of_each_group_is_drawn_ahead(app: AppTest, run: Going) -> None:
    groups = [group("group 0 · body", lr=0.1), group("group 1 · head", lr=0.3)]
    told = {"step": 0, "optimizers": [{"type": "SGD", "title": "SGD", "groups": groups}]}
    run.writer.document("optimizers", 20, told)
    run.writer.flush()
    app.run()
    app.selectbox(key="steer/run/schedule/constant").select("exponential").run()
    drawn = picture(app)
    assert drawn.count("<polyline") == 2
    assert "group 0 · body" in drawn and "group 1 · head" in drawn
    assert ">step 20<" in drawn and ">0.1 → " in drawn and ">0.3 → " in drawn
