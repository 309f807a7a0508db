"""Full, slow, deleted, read-only and network disks."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inspector.errors import StoreError
from inspector.events import Notice, RunFinished, TelemetryDropped
from inspector.quantities import SeriesKey
from inspector.store import database, layout
from inspector.store.layout import create_run
from inspector.store.reader import Run, list_runs, open_run
from inspector.store.writer import Writer
from inspector.views.state import lost
from tests.store.waiting import wait_for

LOSS = (SeriesKey("loss"),)


class FullDisk:
    """A connection whose transactions fail while ``full`` is set."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.full = threading.Event()

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        if self.full.is_set() and sql.startswith("INSERT"):
            raise sqlite3.OperationalError("database or disk is full")
        return self._db.execute(sql, parameters)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def test_a_full_disk_drops_counts_and_resumes(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path, queue_rows=100)
    disk = FullDisk(writer._drain.db)
    writer._drain.db = disk  # type: ignore[assignment]
    writer.append("scalar", 0, LOSS, [0])
    assert writer.flush()
    disk.full.set()
    writer.append("scalar", 1, LOSS, [1])
    wait_for(lambda: "disk is full" in writer.trouble)
    for step in range(2, 301):
        writer.append("scalar", step, LOSS, [step])
    writer.event(300, Notice(message="kept"))
    assert not writer.flush(0.3)
    assert writer.dropped == 200
    disk.full.clear()
    assert writer.flush(10)
    assert writer.trouble == ""
    writer.append("scalar", 301, LOSS, [301])
    writer.close()
    with Run(path) as run:
        np.testing.assert_array_equal(run.series("loss").steps, [*range(101), 301])
        dropped = [e.event for e in run.events() if isinstance(e.event, TelemetryDropped)]
        assert sum(event.rows for event in dropped) == 200
        assert any("disk is full" in event.reason for event in dropped)
        assert any(e.event == Notice(message="kept") for e in run.events())


def test_closing_on_a_full_disk_ends_in_bounded_time(tmp_path: Path) -> None:
    writer = Writer(create_run(tmp_path, "run", {}))
    disk = FullDisk(writer._drain.db)
    writer._drain.db = disk  # type: ignore[assignment]
    disk.full.set()
    writer.append("scalar", 0, LOSS, [0])
    writer.close()
    writer.close()
    assert writer.dropped == 1 and not writer.flush()
    disk._db.close()


def test_a_run_that_ends_on_a_full_disk_is_told_from_one_that_is_complete(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    writer.append("scalar", 0, LOSS, [0])
    assert writer.flush()
    disk = FullDisk(writer._drain.db)
    writer._drain.db = disk  # type: ignore[assignment]
    disk.full.set()
    writer.append("scalar", 1, LOSS, [1])
    writer.event(1, RunFinished())
    writer.close()
    (said,) = caplog.messages
    assert "rank00000.db (database or disk is full). Training goes on" in said
    with Run(path) as run:
        assert run.status == "crashed"
        assert lost(run).startswith("The run's disk refused what was recorded last")
        assert run.series("loss").steps.tolist() == [0]
    again = Writer(path)  # space was made
    with Run(path) as run:
        assert run.status == "running"
    again.event(1, RunFinished())
    again.close()
    with Run(path) as run:
        assert run.status == "finished"
    assert [file.name for file in path.glob("rank*")] == ["rank00000.db"]


def test_a_run_that_could_not_be_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(layout, "write_json", refused)
    with pytest.raises(StoreError, match="No space left on device; choose another"):
        create_run(tmp_path, "run", {})
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="got: there is a file; choose another"):
        create_run(tmp_path / "file", "run", {})


def test_a_slow_disk_never_blocks_the_training_thread(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path, queue_rows=64)
    db, gate = writer._drain.db, threading.Event()

    class Stuck(FullDisk):
        def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
            assert gate.wait(30)
            return db.execute(sql, parameters)

    writer._drain.db = Stuck(db)  # type: ignore[assignment]
    for step in range(1000):
        writer.append("scalar", step, LOSS, [step])  # would hang here
        writer.event(step, Notice(message=str(step)))
    assert writer.dropped == 1000 - 64
    for step in range(10_000):
        writer.histogram(step, "weight", "fc.weight", 0.0, 1.0, [1])
    assert writer.dropped > 1000
    gate.set()
    writer.close()
    with Run(path) as run:
        assert len(run.series("loss")) == 64
        assert sum(isinstance(e.event, Notice) for e in run.events()) == 1000


def test_a_directory_deleted_under_the_writer_is_noticed(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    writer.append("scalar", 0, LOSS, [0])
    assert writer.flush()
    shutil.rmtree(path)
    wait_for(lambda: "was deleted" in writer.trouble)
    before = writer.dropped
    writer.append("scalar", 1, LOSS, [1])
    assert writer.dropped == before + 1 and not writer.flush()
    writer.close()
    assert not path.exists()


def test_a_place_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another run directory"):
        Writer(tmp_path / "file")
    with pytest.raises(StoreError, match="choose another:"):
        create_run(tmp_path / "file", "run", {})
    path = create_run(tmp_path, "run", {})
    (path / "rank00000.db").write_bytes(b"something else" * 1000)
    with pytest.raises(StoreError, match=r"rank00000\.db"):
        Writer(path)


def test_network_disks_get_a_rollback_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, network in {
        "nfs4": True, "cifs": True, "lustre": True, "fuse.sshfs": True, "ext4": False,
        "tmpfs": False, "overlay": False, "": False, "fuse.fuse-overlayfs": False,
    }.items():  # fmt: skip
        monkeypatch.setattr(database, "filesystem", lambda _, kind=kind: kind)
        assert database.on_network(tmp_path) is network, kind
    monkeypatch.setattr(database, "filesystem", lambda _: "nfs4")
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    with Run(path) as run:
        for step in range(100):
            writer.append("scalar", step, LOSS, [step])
        assert writer.flush()
        assert not (path / "rank00000.db-wal").exists()
        assert len(run.series("loss")) == 100
    writer.close()


def test_the_file_system_is_told_by_the_mount_table(tmp_path: Path) -> None:
    if sys.platform == "linux":
        assert database.filesystem(Path("/proc/self")) == "proc"
        assert database.filesystem(tmp_path) != ""


def test_a_run_that_is_closed_to_this_user_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mine", "theirs"):
        Writer(create_run(tmp_path, name, {})).close()
    is_file, access = Path.is_file, os.access

    def seen(path: Path) -> bool:
        if path.parent.name == "theirs":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", seen)
    monkeypatch.setattr(
        os, "access", lambda path, mode: Path(path).name != "theirs" and access(path, mode)
    )
    assert [run.name for run in list_runs(tmp_path)] == ["mine"]
    with pytest.raises(StoreError, match="theirs is closed to this user"):
        open_run("theirs", tmp_path)


def as_another_user(look: Callable[[], str]) -> str:
    """What ``look`` says in a forked process of a user who owns nothing."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgid(65534)
            os.setuid(65534)
            os.write(theirs, look().encode())
        finally:
            os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() != 0, reason="needs a second user")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("closed", [True, False])
def test_a_read_only_run_can_be_read(tmp_path: Path, closed: bool) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    for step in range(1000):
        writer.append("scalar", step, LOSS, [step])
    writer.flush()
    copy = path
    if closed:
        writer.close()
    else:
        copy = create_run(tmp_path, "copy", {})
        for name in ("rank00000.db", "rank00000.db-wal"):
            shutil.copy(path / name, copy / name)
        writer.close()
    for entry in [copy, *copy.iterdir()]:
        entry.chmod(0o555 if entry.is_dir() else 0o444)
    for parent in [tmp_path, *tmp_path.parents][:4]:  # one more beside other test processes
        parent.chmod(parent.stat().st_mode | 0o055)

    def look() -> str:
        with Run(copy) as run:
            (summary,) = [one for one in list_runs(tmp_path) if one.name == copy.name]
            return f"{len(run.series('loss'))} {run.problems} {summary.reason}"

    assert as_another_user(look) == "1000 [] "
