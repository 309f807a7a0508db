"""The Findings page as a person reads it."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.commands import Command
from inspector.events import CommandApplied
from inspector.quantities import SeriesKey
from inspector.store.control import ControlReader
from inspector.store.layout import CONTROL_FILE, create_run
from inspector.store.writer import Writer
from tests.app.in_process import open_page


def page() -> None:
    from inspector.ui.findings_page import findings_page

    findings_page()


def recorded(folder: Path, losses: list[float]) -> str:
    path = create_run(folder, "run", {"kind": "watched", "config": {}})
    writer = Writer(path)
    keys = (SeriesKey("loss"), SeriesKey("total_update_ratio"), SeriesKey("lr"))
    for step, loss in enumerate(losses):
        writer.append("scalar", step, keys, [loss, 0.5, 1.0])
    writer.close()
    return path.name


@pytest.fixture
def app(tmp_path: Path) -> AppTest:
    return open_page(tmp_path, page)


def test_a_diverged_run_shows_verdict_evidence_and_remedy(app: AppTest, tmp_path: Path) -> None:
    app.session_state["run"] = recorded(tmp_path, [2.3 * 2.0**step for step in range(30)])
    app.run()
    assert not app.exception
    assert any("Learning rate too high" in element.value for element in app.markdown)
    assert any("loss over its first value" in element.value for element in app.caption)
    (button,) = [b for b in app.button if str(b.key).startswith("remedy-")]
    assert button.disabled  # the run has ended


def test_a_remedy_is_sent_once_until_the_run_has_answered(app: AppTest, tmp_path: Path) -> None:
    name = recorded(tmp_path, [2.3 * 2.0**step for step in range(30)])
    app.session_state["run"] = name
    with closing(Writer(tmp_path / name)) as writer, closing(ControlReader(tmp_path / name)) as run:
        writer.heartbeat(30, "running")
        writer.flush()

        def press(after: float) -> list[Command]:
            """What the run hears when the remedy is pressed, so many seconds after the last."""
            with sqlite3.connect(tmp_path / name / CONTROL_FILE) as control:
                control.execute("UPDATE command SET wall = ?", (time.time() - after,))
            app.button(key="remedy-0-lr_too_high-0").click().run()
            assert not app.exception
            return run.poll()

        app.run()
        app.button(key="remedy-0-lr_too_high-0").click().run()
        (first,) = run.poll()
        assert press(after=60) == []  # it waits for a slow step
        assert any("Sent already" in toast.value for toast in app.toast)
        writer.event(30, CommandApplied(command_id=first.id, name="lr"))
        writer.flush()
        assert press(after=0) == []  # a double click
        (second,) = press(after=60)
        assert (second.value, second.id != first.id) == (first.value, True)


def test_a_quiet_run_says_so(app: AppTest, tmp_path: Path) -> None:
    app.session_state["run"] = recorded(tmp_path, [2.0])
    app.run()
    assert [element.value for element in app.success] == [
        "Nothing suspicious has been found so far."
    ]


def test_advice_lies_open_where_no_button_can_be_pressed(app: AppTest, tmp_path: Path) -> None:
    app.session_state["run"] = recorded(tmp_path, [-2.0 * 2.0**step for step in range(30)])
    app.run()
    assert not app.exception
    first, *_ = [one for one in app.expander if one.label == "In your own script"]
    assert first.proto.expanded
    assert "minus sign" in first.caption[0].value
