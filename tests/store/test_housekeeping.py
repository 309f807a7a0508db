"""Runs are renamed and put into the trash, and nothing is lost on the way."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from inspector.errors import RunNotFound, StoreError
from inspector.quantities import SeriesKey
from inspector.store.housekeeping import TRASH, rename_run, trash_run
from inspector.store.layout import RUN_FILE, create_run
from inspector.store.reader import Run, list_runs
from inspector.store.writer import Writer


def ended_run(folder: Path, name: str) -> None:
    writer = Writer(create_run(folder, name, {}))
    writer.append("run", 0, (SeriesKey("loss"),), np.array([2.5], np.float32))
    writer.close()


def test_a_renamed_run_is_read_by_its_new_name(tmp_path: Path) -> None:
    ended_run(tmp_path, "first")
    assert rename_run(tmp_path, "first", "base/line") == "base-line"
    assert [run.name for run in list_runs(tmp_path)] == ["base-line"]
    assert json.loads((tmp_path / "base-line" / RUN_FILE).read_text())["name"] == "base-line"
    with Run(tmp_path / "base-line") as run:
        assert run.series("loss").values.tolist() == [2.5]


@pytest.mark.parametrize(("wanted", "said"), [("second", "second already"), ("  ", "at least one")])
def test_a_name_that_cannot_be_had_is_refused(tmp_path: Path, wanted: str, said: str) -> None:
    for name in ("first", "second"):
        ended_run(tmp_path, name)
    with pytest.raises(StoreError, match=said):
        rename_run(tmp_path, "first", wanted)
    assert {run.name for run in list_runs(tmp_path)} == {"first", "second"}


def test_deleted_runs_lie_in_the_trash_and_come_back_by_moving(tmp_path: Path) -> None:
    for _ in range(2):
        ended_run(tmp_path, "run")
        trash_run(tmp_path, "run")
    assert list_runs(tmp_path) == []
    assert {path.name for path in (tmp_path / TRASH).iterdir()} == {"run", "run-2"}
    (tmp_path / TRASH / "run").rename(tmp_path / "run")
    assert [run.name for run in list_runs(tmp_path)] == ["run"]


def test_a_run_that_is_going_is_left_alone(tmp_path: Path) -> None:
    path = create_run(tmp_path, "going", {})
    writer = Writer(path)
    writer.heartbeat(0, "running")
    writer.flush()
    try:
        with pytest.raises(StoreError, match="running; stop it first"):
            trash_run(tmp_path, "going")
        with pytest.raises(StoreError, match="running; stop it first"):
            rename_run(tmp_path, "going", "other")
    finally:
        writer.close()


def test_names_that_reach_outside_the_folder_are_no_runs(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    ended_run(runs, "one")
    ended_run(tmp_path, "outside")
    with pytest.raises(RunNotFound):
        trash_run(runs, "../outside")
