"""Commands arrive in order, once, and rubbish in the file hurts nobody."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from inspector.commands import Command
from inspector.errors import StoreError
from inspector.store.control import ControlReader, ControlWriter


def test_commands_arrive_in_order_and_once(tmp_path: Path) -> None:
    reader, writer = ControlReader(tmp_path), ControlWriter(tmp_path)
    assert reader.poll() == []
    commands = [Command(name="set", control="lr", value=0.1 * i) for i in range(5)]
    assert [writer.send(command) for command in commands] == [c.id for c in commands]
    assert reader.poll() == commands
    assert reader.poll() == []
    writer.send(commands[0])
    stop = Command(name="stop")
    writer.send(stop)
    assert reader.poll() == [stop]
    assert ControlReader(tmp_path).poll() == [*commands, stop]
    assert ControlReader(tmp_path, seen=[c.id for c in commands]).poll() == [stop]
    writer.close()
    writer.send(Command(name="pause"))
    assert [command.name for command in reader.poll()] == ["pause"]
    writer.close()
    reader.close()


def test_the_newest_command_that_asks_for_the_same(tmp_path: Path) -> None:
    writer = ControlWriter(tmp_path)
    back = Command(name="rewind", value={"lr_factor": 0.1})
    assert writer.newest(back) is None
    for command in (back, Command(name="rewind"), Command(name="rewind", value={"lr_factor": 0.5})):
        writer.send(command)
    with sqlite3.connect(tmp_path / "control.db") as db:
        db.execute("INSERT INTO command(uid, wall, json) VALUES ('x', 0, 'not json')")
    sent = writer.newest(Command(name="rewind", value={"lr_factor": 0.1}))
    assert sent is not None
    assert sent.id == back.id
    assert abs(sent.wall - time.time()) < 60
    assert writer.newest(Command(name="rewind", value={"lr_factor": 0.2})) is None
    writer.close()


def test_rows_that_are_no_commands_are_refused_and_named(tmp_path: Path) -> None:
    writer, reader = ControlWriter(tmp_path), ControlReader(tmp_path)
    writer.send(Command(name="pause"))
    rubbish = [
        "not json",
        "[]",
        '{"name": "set", "control": "lr", "value": -1, "id": "x"}',
        '{"name": "set", "control": ["lr"], "value": 1, "id": "x"}',
        '{"name": "set", "control": "lr", "value": 1' + "0" * 400 + ', "id": "x"}',
        '{"name": "explode", "control": "", "value": 1, "id": "x"}',
        "[" * 100_000,
    ]
    with sqlite3.connect(tmp_path / "control.db") as db:
        for number, text in enumerate(rubbish):
            db.execute("INSERT INTO command(uid, json) VALUES (?,?)", (f"bad{number}", text))
    writer.send(Command(name="resume"))
    assert [command.name for command in reader.poll()] == ["pause", "resume"]
    assert [refused.id for refused in reader.refused] == [f"bad{i}" for i in range(len(rubbish))]
    assert "0 or greater" in reader.refused[2].reason
    assert reader.poll() == []


def test_several_tabs_send_at_once(tmp_path: Path) -> None:
    def send() -> None:
        writer = ControlWriter(tmp_path)
        for _ in range(20):
            writer.send(Command(name="pause"))
        writer.close()

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    reader, got = ControlReader(tmp_path), []
    while any(thread.is_alive() for thread in threads):
        got += reader.poll()
    got += reader.poll()
    assert len(got) == len({command.id for command in got}) == 80


def test_a_run_that_is_gone_is_an_error_with_advice(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    writer, reader = ControlWriter(run), ControlReader(run)
    writer.send(Command(name="pause"))
    assert reader.poll()
    shutil.rmtree(run)
    assert reader.poll() == []
    with pytest.raises(StoreError, match="check that the run directory exists"):
        writer.send(Command(name="pause"))


def test_a_broken_control_file_is_no_command(tmp_path: Path) -> None:
    (tmp_path / "control.db").write_bytes(b"rubbish" * 1000)
    assert ControlReader(tmp_path).poll() == []
