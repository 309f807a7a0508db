"""What goes in comes out: rows, gaps, events, documents, histograms, live tails."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import inspector
from inspector.errors import RunNotFound, StoreError
from inspector.events import EpochFinished, RunFailed, RunFinished, RunStarted
from inspector.quantities import SeriesKey
from inspector.store.layout import ABSENT, create_run, is_absent, run_path, write_json
from inspector.store.reader import Cursor, Run, list_runs
from inspector.store.writer import Writer

LOSS = SeriesKey("loss")
LR = SeriesKey("lr")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return create_run(tmp_path, "run", {"kind": "built_in", "config": {"model": "mlp"}})


def test_rows_come_back_exactly(run_dir: Path) -> None:
    keys = tuple(SeriesKey("grad_norm", "parameter", f"m{i}.weight") for i in range(300))
    rows = np.random.default_rng(1).standard_normal((500, 300)).astype(np.float32)
    with_gaps = np.cumsum(np.random.default_rng(2).integers(1, 5, 500))
    writer = Writer(run_dir)
    for step, row in zip(with_gaps, rows, strict=True):
        writer.append("parameter", int(step), keys, row)
    writer.close()
    with Run(run_dir) as run:
        assert run.keys() == list(keys)
        for column in (0, 127, 128, 299):
            series = run.series("grad_norm", keys[column].subject)
            assert series.bucket == 1
            np.testing.assert_array_equal(series.steps, with_gaps)
            np.testing.assert_array_equal(series.values, rows[:, column])
        middle = run.series("grad_norm", "m5.weight", first=int(with_gaps[70]), last=400)
        kept = (with_gaps >= with_gaps[70]) & (with_gaps <= 400)
        np.testing.assert_array_equal(middle.values, rows[kept, 5])
        assert len(run.series("grad_norm", "m5.weight", first=10**9)) == 0


def test_names_in_another_order_lose_nothing(run_dir: Path) -> None:
    with_order = Writer(run_dir)
    with_order.append("scalar", 0, (LOSS, LR), [1.0, 0.1])
    assert with_order.flush()
    with_order.append("scalar", 1, (LR, LOSS), [0.2, 2.0])  # a block of its own, columns swapped
    with_order.close()
    with Run(run_dir) as run:
        np.testing.assert_array_equal(run.series("loss").values, np.float32([1.0, 2.0]))
        np.testing.assert_array_equal(run.series("lr").values, np.float32([0.1, 0.2]))
        assert not [e for e in run.events() if e.event.kind == "telemetry_dropped"]


def test_absent_is_not_a_recorded_nan(run_dir: Path) -> None:
    both = (LOSS, LR)
    writer = Writer(run_dir)
    writer.append("scalar", 0, (LOSS,), [1.0])
    writer.append("scalar", 1, both, [math.nan, 0.1])
    writer.append("scalar", 2, (LR,), [math.inf])
    writer.append("scalar", 3, both, np.array([ABSENT, 0.3], np.float32))
    writer.append("scalar", 4, (LR, LOSS), [0.4, 5.0])
    writer.close()
    with Run(run_dir) as run:
        loss, lr = run.series("loss"), run.series("lr")
        np.testing.assert_array_equal(loss.steps, [0, 1, 4])
        np.testing.assert_array_equal(loss.values, np.float32([1, math.nan, 5]))
        np.testing.assert_array_equal(loss.nonfinite, [0, 1, 0])
        np.testing.assert_array_equal(lr.steps, [1, 2, 3, 4])
        np.testing.assert_array_equal(lr.values, np.float32([0.1, math.inf, 0.3, 0.4]))
        _, delta = run.tail(Cursor())
    rows = delta.rows["scalar"]
    assert rows.keys == (LOSS, LR)
    np.testing.assert_array_equal(
        is_absent(rows.values), [[False, False, True, True, False], [True] + [False] * 4]
    )


def test_groups_have_cadences_of_their_own(run_dir: Path) -> None:
    writer = Writer(run_dir)
    for step in range(200):
        writer.append("scalar", step, (LOSS,), [float(step)])
        if step % 50 == 49:
            writer.append("validation", step, (SeriesKey("val_loss"),), [step / 2])
    writer.close()
    with Run(run_dir) as run:
        assert len(run.series("loss")) == 200
        np.testing.assert_array_equal(run.series("val_loss").steps, [49, 99, 149, 199])
        assert len(run.series("never recorded")) == 0


def test_the_training_thread_may_reuse_its_array(run_dir: Path) -> None:
    row = np.zeros(1, np.float32)
    writer = Writer(run_dir)
    for step in range(100):
        row[0] = step
        writer.append("scalar", step, (LOSS,), row)
    writer.close()
    with Run(run_dir) as run:
        np.testing.assert_array_equal(run.series("loss").values, np.arange(100))


def test_events_documents_histograms(run_dir: Path) -> None:
    with Run(run_dir) as run:
        assert run.events() == [] and run.document("modules") is None and run.keys() == []
        writer = Writer(run_dir)
        writer.event(0, RunStarted(device="cpu"))
        writer.event(9, EpochFinished(epoch=0, val_loss=0.5))
        writer.document("modules", 0, {"modules": [{"path": "fc"}]})
        writer.document("graph", 5, {"step": 5})
        writer.document("graph", 9, {"step": 9})
        writer.histogram(9, "weight", "fc.weight", -1.0, 1.0, [1, 2, 2**40])
        writer.histogram(10, "weight", "fc.weight", math.nan, math.inf, [0])
        assert writer.flush()
        first, second = run.events()
        assert first.event == RunStarted(device="cpu") and (first.seq, first.step) == (1, 0)
        assert isinstance(second.event, EpochFinished) and second.wall >= first.wall
        assert run.events(after=first.seq) == [second]
        assert run.document("graph") == {"step": 9}
        assert run.document("graph", 8) == {"step": 5}
        assert run.document("graph", 4) is None
        assert [step for step, _ in run.documents("graph")] == [5, 9]
        one, two = run.histograms("weight", "fc.weight")
        assert (one.step, one.low, one.high) == (9, -1.0, 1.0)
        np.testing.assert_array_equal(one.counts, [1, 2, 2**40])
        assert math.isnan(two.low) and two.high == math.inf
        writer.close()


def test_tail_gives_each_row_once(run_dir: Path) -> None:
    writer = Writer(run_dir)
    wide = tuple(SeriesKey("grad_norm", "parameter", str(i)) for i in range(200))
    with Run(run_dir) as run:
        cursor, delta = run.tail(None)
        assert not delta
        steps: list[int] = []
        for step in range(300):
            writer.append("scalar", step, (LOSS,), [step])
            writer.append("parameter", step, wide, np.full(200, step, np.float32))
            if step % 37 == 0:
                writer.event(step, RunStarted())
                assert writer.flush()
                cursor, delta = run.tail(cursor)
                assert [event.step for event in delta.events] == [step]
                rows = delta.rows["parameter"]
                assert rows.values.shape == (200, len(rows.steps))
                assert (rows.values == rows.steps).all()
                steps += delta.rows["scalar"].steps.tolist()
                assert run.tail(cursor)[1].rows == {}
        writer.close()
        cursor, delta = run.tail(cursor, keys={LOSS, wide[150]})
        assert delta.rows["parameter"].keys == (wide[150],)
        steps += delta.rows["scalar"].steps.tolist()
        assert steps == list(range(300))
        again, empty = run.tail(cursor)
        assert again == cursor and not empty


def test_matrix_by_subject_and_by_module(run_dir: Path) -> None:
    names = ("b.weight", "b.bias", "a.weight")
    keys = tuple(SeriesKey("grad_norm", "parameter", name) for name in names)
    counts = tuple(SeriesKey("grad_nonfinite", "parameter", name) for name in names)
    writer = Writer(run_dir)
    for step in range(1000):
        writer.append(
            "parameter", step, keys + counts, [3.0, 4.0, math.nan if step == 500 else 1, 1, 2, 3]
        )
    writer.close()
    with Run(run_dir) as run:
        whole = run.matrix("grad_norm", max_points=1000)
        assert whole.subjects == list(names) and whole.values.shape == (3, 1000)
        assert math.isnan(whole.values[2, 500]) and whole.nonfinite[2, 500] == 1
        coarse = run.matrix("grad_norm", by="module", max_points=100)
        assert coarse.subjects == ["b", "a"] and coarse.values.shape[1] <= 100
        np.testing.assert_allclose(coarse.values[0], 5.0)
        assert coarse.nonfinite.sum() == 1 and np.isnan(coarse.values).sum() == 1
        np.testing.assert_array_equal(run.matrix("grad_nonfinite", by="module").values[0], 3)
        assert run.matrix("grad_norm", subjects=["a.weight"]).subjects == ["a.weight"]
        assert run.matrix("activation_mean").values.shape == (0, 0)


def test_ranks(run_dir: Path) -> None:
    writers = [Writer(run_dir, rank=rank) for rank in range(2)]
    for rank, writer in enumerate(writers):
        writer.append("scalar", 0, (LOSS,), [rank + 0.5])
        writer.event(0, RunStarted(device=f"cuda:{rank}"))
        writer.close()
    with Run(run_dir) as run:
        assert run.ranks == [0, 1]
        assert run.series("loss").values[0] == 0.5
        assert run.series("loss", rank=1).values[0] == 1.5
        assert sorted(event.rank for event in run.events()) == [0, 1]
        assert [event.rank for event in run.events(rank=1)] == [1]


def test_a_writer_takes_up_a_closed_run(run_dir: Path) -> None:
    values = np.random.default_rng(3).standard_normal(6000).astype(np.float32)
    at = 0
    for stop in (5, 300, 301, 4200, 6000):
        writer = Writer(run_dir)
        for step in range(at, stop):
            writer.append("scalar", step, (LOSS,), values[step : step + 1])
            if step % 1000 == 0:
                writer.flush()
        writer.close()
        at = stop
    with Run(run_dir) as run:
        np.testing.assert_array_equal(run.series("loss", max_points=6000).values, values)
        found = run.series("loss", max_points=12)
        assert found.bucket == 512
        parts = [values[i : i + 512] for i in range(0, 6000, 512)]
        np.testing.assert_array_equal(found.low, [part.min() for part in parts])
        np.testing.assert_allclose(found.values, [part.mean() for part in parts], atol=1e-6)


def test_names_of_runs(tmp_path: Path) -> None:
    assert create_run(tmp_path, "Übung 1", {}).name == "Übung 1"
    assert create_run(tmp_path, "Übung 1", {}).name == "Übung 1-2"
    escaped = create_run(tmp_path, "../../etc/passwd", {})
    assert escaped.parent == tmp_path and "/" not in escaped.name
    assert create_run(tmp_path, "..", {}).parent == tmp_path
    assert len(create_run(tmp_path, "x" * 400, {}).name) <= 120
    assert run_path(tmp_path, "Übung 1").is_dir()
    for name in ("..", "", ".", "a/b", "Übung 1/../Übung 1", "nope"):
        with pytest.raises(RunNotFound, match="name of a run"):
            run_path(tmp_path, name)


def test_open_run_by_name_and_path(run_dir: Path) -> None:
    with inspector.open_run("run", runs_dir=run_dir.parent) as run:
        assert run.name == "run" and run.config == {"model": "mlp"}
        assert run.meta["kind"] == "built_in" and run.status == "empty"
    with inspector.open_run(run_dir) as run:
        assert run.path == run_dir
    with pytest.raises(StoreError, match="closed"):
        run.keys()
    with pytest.raises(RunNotFound, match="nope"):
        inspector.open_run("nope", runs_dir=run_dir.parent)


def test_list_runs(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "missing") == []
    runs = {name: create_run(tmp_path, name, {}) for name in ("a", "b", "c", "d", "e")}
    for name, event in (
        ("a", RunFinished(reason="completed")),
        ("b", RunFinished(reason="stopped")),
        ("c", RunFailed(error="ValueError", message="no")),
    ):
        writer = Writer(runs[name])
        writer.heartbeat(7, "running", total_steps=10)
        writer.event(7, event)
        writer.close()
    (runs["d"] / "rank00000.db").write_bytes(b"not a database" * 100)
    found = list_runs(tmp_path)
    assert [run.name for run in found] == ["e", "d", "c", "b", "a"]
    by_name = {run.name: run for run in found}
    assert [by_name[name].status for name in "abcde"] == [
        "finished", "stopped", "failed", "unreadable", "empty",
    ]  # fmt: skip
    assert (by_name["a"].step, by_name["a"].total_steps) == (7, 10)
    assert "not a database" in by_name["d"].reason
    (runs["e"] / "run.json").write_text("{half")
    assert {run.name: run.status for run in list_runs(tmp_path)}["e"] == "unreadable"
    write_json(runs["e"] / "run.json", {"format": 99})
    assert "upgrade" in next(run.reason for run in list_runs(tmp_path) if run.name == "e")


def test_importing_the_package_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys, json, inspector; before = set(sys.modules); inspector.open_run; "
        "print(json.dumps([[m in s for m in ('torch', 'numpy')] "
        "for s in (before, set(sys.modules))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout) == [[False, False], [False, True]]
