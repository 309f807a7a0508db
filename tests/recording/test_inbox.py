"""Commands on their way: heard by a thread of their own, which raises the alarm."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from inspector.commands import Command
from inspector.events import CommandRefused, Event
from inspector.recording.inbox import Inbox
from inspector.store.control import ControlWriter
from inspector.store.layout import CONTROL_FILE, create_run


class Heard:
    """An inbox with everything around it."""

    def __init__(self, path: Path) -> None:
        self.pulse: Any = SimpleNamespace(step=7, alarm=0)
        self.events: list[Event] = []
        self.gone = False
        self.ended = threading.Event()
        self.told = threading.Event()
        self.inbox = Inbox(
            path,
            None,
            pulse=self.pulse,
            emit=self._emit,
            abandoned=self._abandoned,
        )

    def _emit(self, event: Event) -> None:
        self.events.append(event)
        self.told.set()

    def _abandoned(self) -> bool:
        if self.gone:
            self.ended.set()
        return self.gone


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return create_run(tmp_path, "run", {})


@pytest.fixture
def heard(path: Path) -> Iterator[Heard]:
    made = Heard(path)
    made.inbox.open()
    yield made
    made.inbox.close()


def test_a_command_raises_the_alarm_and_waits_its_turn(heard: Heard, path: Path) -> None:
    assert not heard.inbox.waiting
    with closing(ControlWriter(path)) as control:
        control.send(Command(name="pause", id="one"))
        assert heard.inbox.arrived.wait(10)
        heard.inbox.wait(10)
    assert heard.pulse.alarm
    assert heard.inbox.waiting
    assert [command.id for command in heard.inbox.commands] == ["one"]
    assert heard.events == []


def test_nothing_is_heard_once_nobody_trains(heard: Heard, path: Path) -> None:
    heard.gone = True
    assert heard.ended.wait(10)
    with closing(ControlWriter(path)) as control:
        control.send(Command(name="pause"))
    assert not heard.inbox.waiting
    assert not heard.pulse.alarm


def test_what_is_no_command_is_answered(heard: Heard, path: Path) -> None:
    with closing(ControlWriter(path)) as control:
        control.send(Command(name="pause", id="first"))
        with closing(sqlite3.connect(path / CONTROL_FILE)) as db:
            db.execute("INSERT INTO command(uid, wall, json) VALUES ('odd', 0, '{')")
            db.commit()
        assert heard.told.wait(10)
    (refused,) = heard.events
    assert isinstance(refused, CommandRefused) and refused.command_id == "odd"
    assert [command.id for command in heard.inbox.commands] == ["first"]
