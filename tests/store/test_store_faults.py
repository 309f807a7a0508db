"""Kills, flipped bits, second writers, forks, threads."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from inspector.errors import StoreError
from inspector.events import Notice, RunStarted, TelemetryDropped
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.process import Process
from inspector.store.reader import Run, list_runs
from inspector.store.writer import Writer
from tests.store.waiting import wait_for

LOSS = (SeriesKey("loss"),)
WIDE = tuple(SeriesKey("grad_norm", "parameter", str(i)) for i in range(200))

# Prints the number of acknowledged rows after each flush, until it is killed.
CHILD = """
import sys
import numpy as np
from inspector.quantities import SeriesKey
from inspector.store.writer import Writer
from inspector.store.reader import Run
from pathlib import Path
path = Path(sys.argv[1])
with Run(path) as run:
    done = len(run.series("loss", max_points=10**9))
keys = tuple(SeriesKey("grad_norm", "parameter", str(i)) for i in range(200))
loss = (SeriesKey("loss"),)
writer = Writer(path)
writer.heartbeat(done, "running")
while True:
    for step in range(done, done + 150):
        writer.append("scalar", step, loss, [step])
        writer.append("parameter", step, keys, np.full(200, step, np.float32))
    done += 150
    assert writer.flush(60)
    print(done, flush=True)
"""


def start_child(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_a_kill_loses_no_acknowledged_row(tmp_path: Path, kills: int) -> None:
    path = create_run(tmp_path, "run", {})
    chance = random.Random(kills)
    for _ in range(kills):
        with start_child(path) as child:
            assert child.stdout is not None
            acked = 0
            for _ in range(chance.randrange(1, 12)):
                acked = int(child.stdout.readline())
            with Run(path) as live:
                assert live.status == "running"
                time.sleep(chance.random() / 50)  # somewhere inside the next transactions
                child.send_signal(signal.SIGKILL)
                acked = int(["0", *child.stdout.read().split()][-1]) or acked
                child.wait()
                assert live.status == "crashed"
        with Run(path) as run:
            loss = run.series("loss", max_points=10**9)
            wide = run.series("grad_norm", "150", max_points=10**9)
            assert len(loss) >= acked and len(wide) >= acked
            assert run.heartbeat is not None
            assert run.heartbeat.step == max(len(loss), len(wide))
            for series in (loss, wide):
                np.testing.assert_array_equal(series.steps, np.arange(len(series)))
                np.testing.assert_array_equal(series.values, np.arange(len(series)))
            assert run.problems == []
            coarse = run.series("grad_norm", "150", max_points=20)
            assert coarse.high[-1] == len(wide) - 1 and coarse.low[0] == 0
    assert list_runs(tmp_path)[0].status == "crashed"


def test_crashed_is_seen_although_the_parent_has_not_waited(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    with start_child(path) as child, Run(path) as run:
        assert child.stdout is not None
        child.stdout.readline()
        assert run.heartbeat is not None and run.heartbeat.pid_alive
        child.send_signal(signal.SIGKILL)
        wait_for(lambda: run.status == "crashed")  # the child is a zombie now
        assert run.heartbeat.pid_alive is False


def test_another_process_with_the_same_number_is_not_the_writer() -> None:
    me = Process.current()
    assert me.alive() is True
    assert Process(me.pid, me.start + "1", me.host).alive() is False
    assert Process(me.pid, me.start, "elsewhere").alive() is None


def test_silence_from_another_host_is_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    writer.heartbeat(3, "paused")
    writer.flush()
    with Run(path) as run:
        assert run.status == "paused"
        monkeypatch.setattr("inspector.store.process._host", lambda: "elsewhere")
        assert run.status == "paused" and run.heartbeat is not None
        assert run.heartbeat.pid_alive is True  # it said so a moment ago
        now = time.time()
        monkeypatch.setattr("inspector.store.resume.time.time", lambda: now + 60)
        assert run.status == "crashed"
        monkeypatch.undo()
    writer.close()


def test_a_flipped_bit_costs_its_chunk_and_is_reported(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    for step in range(640):
        writer.append("scalar", step, LOSS, [step])
    writer.close()
    with sqlite3.connect(path / "rank00000.db") as db:
        query = "SELECT id, v FROM chunk WHERE first <= 200 AND last >= 200"
        row, values = db.execute(query).fetchone()
        damaged = bytearray(values)
        damaged[9] ^= 4
        db.execute("UPDATE chunk SET v = ? WHERE id = ?", (bytes(damaged), row))
    with Run(path) as run:
        steps = run.series("loss").steps
        assert 200 not in steps and {0, 639} <= set(steps.tolist()) and len(steps) >= 640 - 64
        (problem,) = run.problems
        assert "damaged" in problem and "scalar" in problem
        assert run.series("loss", max_points=4).high[-1] == 639
        assert len(run.problems) == 1
    again = Writer(path)  # a damaged run can be gone on with
    again.append("scalar", 640, LOSS, [640])
    again.close()
    with Run(path) as run:
        assert run.series("loss").steps[-1] == 640


@pytest.mark.parametrize("seed", range(8))
def test_a_file_damaged_anywhere_never_raises_and_never_lies(tmp_path: Path, seed: int) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    for step in range(2000):
        writer.append("parameter", step, WIDE, np.full(200, step, np.float32))
    writer.event(1, RunStarted())
    writer.close()
    file = path / "rank00000.db"
    content = bytearray(file.read_bytes())
    chance = random.Random(seed)
    for _ in range(40):
        content[chance.randrange(100, len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)
    list_runs(tmp_path)
    try:
        run = Run(path)
    except StoreError:
        return
    with run:
        found = run.series("grad_norm", "7", max_points=10**6)
        np.testing.assert_array_equal(found.values, found.steps)
        run.series("grad_norm", "7", max_points=10)
        run.matrix("grad_norm"), run.events(), run.status, run.heartbeat
        assert len(found) == 2000 or run.problems


def test_steps_that_fall_and_wrong_lengths(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    for step in (0, 5, 5, 3, 6):
        writer.append("scalar", step, LOSS, [step])
    with pytest.raises(ValueError, match="Expected 1 values, one for each key, but got 2"):
        writer.append("scalar", 7, LOSS, [1, 2])
    writer.close()
    writer.append("scalar", 8, LOSS, [8])
    with Run(path) as run:
        assert run.series("loss").steps.tolist() == [0, 5, 6]
        (dropped,) = [e.event for e in run.events() if isinstance(e.event, TelemetryDropped)]
        assert dropped.rows == 2 and "rise" in dropped.reason


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    first = Writer(path)
    with pytest.raises(StoreError, match=r"no writer, but process \d+ writes it"):
        Writer(path)
    Writer(path, rank=1).close()
    first.close()
    Writer(path).close()
    with start_child(path) as child:
        assert child.stdout is not None and child.stdout.readline()
        with pytest.raises(StoreError, match=f"process {child.pid} writes it"):
            Writer(path)
        child.kill()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_neither_writes_nor_hangs(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    writer.append("scalar", 0, LOSS, [0])
    with writer._intake.lock:  # as if a worker of a DataLoader were forked in the middle of a row
        child = os.fork()
    if child == 0:
        writer.append("scalar", 1, LOSS, [1])
        writer.event(1, Notice(message="child"))
        flushed = writer.flush()
        writer.close()
        os._exit(1 if flushed else 0)
    wait_for(lambda: os.waitpid(child, os.WNOHANG) == (child, 0))
    writer.append("scalar", 2, LOSS, [2])
    writer.close()
    with Run(path) as run:
        assert run.series("loss").steps.tolist() == [0, 2]
        assert run.events() == []


def test_several_threads_share_a_run(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    writer.append("parameter", 0, WIDE, np.zeros(200, np.float32))
    assert writer.flush()
    errors: list[BaseException] = []
    done = threading.Event()

    def look(run: Run) -> None:
        try:
            cursor, _ = run.tail(None)
            while not done.is_set():
                cursor, delta = run.tail(cursor)
                for rows in delta.rows.values():
                    assert (rows.values == rows.steps).all()
                found = run.series("grad_norm", "7", max_points=10**6)
                np.testing.assert_array_equal(found.values, np.arange(len(found)))
                run.matrix("grad_norm", max_points=10)
                assert run.status == "running"
        except BaseException as error:
            errors.append(error)

    with Run(path) as run:
        threads = [threading.Thread(target=look, args=(run,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for step in range(1, 3000):
            writer.append("parameter", step, WIDE, np.full(200, step, np.float32))
            if step % 100 == 0:
                assert writer.flush(30)
        done.set()
        for thread in threads:
            thread.join(30)
    writer.close()
    assert errors == []


def test_a_reader_that_stays_open_does_not_hold_the_wal(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path)
    with Run(path) as run:
        cursor, _ = run.tail(None)
        for step in range(6000):
            writer.append("parameter", step, WIDE, np.full(200, step, np.float32))
            if step % 500 == 499:
                assert writer.flush()
                cursor, delta = run.tail(cursor)
                assert delta.rows["parameter"].steps[-1] == step
                run.series("grad_norm", "3")
        wal = (path / "rank00000.db-wal").stat().st_size
    writer.close()
    assert wal < 64 << 20
    assert not (path / "rank00000.db-wal").exists()
