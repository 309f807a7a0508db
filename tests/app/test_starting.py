"""A run is started once, however often and whatever is clicked meanwhile."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from inspector.errors import ConfigError
from inspector.ui import starting


class Starts:
    """What was started; each start lasts until it is let go on."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.go_on = threading.Event()

    def __call__(self, told: Any) -> str:
        told("Reading …", 0.5)
        self.names.append(f"run-{len(self.names) + 1}")
        name = self.names[-1]
        assert self.go_on.wait(20)
        return name


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    made = Starts()
    monkeypatch.setattr(starting, "st", SimpleNamespace(session_state={}))
    monkeypatch.setattr(starting, "_show", lambda job, _title: job.wait(20))
    return made


def test_a_second_click_joins_the_first(starts: Starts) -> None:
    starting.begin("start", "config", starts)
    starting.begin("start", "config", starts)
    assert starting.going("start") and not starting.going("fork/run")
    starts.go_on.set()
    assert starting.follow("start", "…") == "run-1"
    assert not starting.going("start")
    assert starting.follow("start", "…") == ""
    assert starting.just_made("start") == "run-1" and not starting.just_made("fork/run")


def test_a_click_that_comes_late_leads_to_the_same_run(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts.go_on.set()
    starting.begin("start", "config", starts)
    assert starting.follow("start", "…") == "run-1"
    starting.begin("start", "config", starts)
    assert starting.follow("start", "…") == "run-1"
    monkeypatch.setattr(starting, "_LATE_SECONDS", 0.0)
    starting.begin("start", "config", starts)
    assert starting.follow("start", "…") == "run-2"


def test_something_else_is_started_after_the_first(starts: Starts) -> None:
    starting.begin("start", "config", starts)
    threading.Timer(0.2, starts.go_on.set).start()
    starting.begin("start", "another", starts)
    assert starting.follow("start", "…") == "run-2"
    assert starts.names == ["run-1", "run-2"]


def test_a_refusal_comes_out_once_and_may_be_tried_again(starts: Starts) -> None:
    def refuse(_told: Any) -> str:
        raise ConfigError("Not like this.")

    starting.begin("start", "config", refuse)
    with pytest.raises(ConfigError, match="Not like this"):
        starting.follow("start", "…")
    assert not starting.going("start")
    starts.go_on.set()
    starting.begin("start", "config", starts)
    assert starting.follow("start", "…") == "run-1"


def test_what_nobody_waited_for_leads_nowhere_later(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    starts.go_on.set()
    starting.begin("start", "config", starts)
    starting.st.session_state["starting"].wait(20)
    monkeypatch.setattr(starting, "_STALE_SECONDS", -1.0)
    assert not starting.going("start")
    assert starting.follow("start", "…") == ""


def page() -> None:
    import time
    from typing import Any  # noqa: F401

    import streamlit as st

    from inspector.ui import starting

    def start(told: Any) -> str:
        told("Reading the data …", 0.4)
        time.sleep(0.3)
        return "run"

    starting.begin("start", 1, start)
    st.write(f"started {starting.follow('start', 'Starting …')}")


def test_how_far_it_is_is_shown() -> None:
    app = AppTest.from_function(page, default_timeout=30).run()
    assert not app.exception, app.exception
    assert app.markdown[0].value == "started run"
    assert app.status[0].label == "Reading the data …"
