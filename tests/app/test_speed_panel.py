"""Speed on the Live page: what share of a step goes into waiting for data."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from inspector.config import RunConfig
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.writer import Writer
from tests.app.in_process import open_app, read, turn_to


def recorded(folder: Path, name: str, kind: str, share: float | None) -> None:
    """A run of twenty steps of 40 ms, that share of it waiting for data."""
    config = RunConfig().to_dict() if kind == "built_in" else {}
    writer = Writer(create_run(folder, name, {"kind": kind, "config": config}))
    for step in range(20):
        row = {"loss": 1.0, "step_time": 0.04}
        if share is not None:
            row["data_seconds"] = share * 0.04
        writer.append("scalar", step, tuple(map(SeriesKey, row)), list(row.values()))
    writer.close()


@pytest.fixture(scope="module")
def runs_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("speed") / "runs"
    recorded(folder, "waits", "built_in", 0.75)
    recorded(folder, "computes", "built_in", 0.1)
    recorded(folder, "script", "watched", None)
    return folder


def live(runs_dir: Path, run: str) -> AppTest:
    return turn_to(open_app(runs_dir, run=run), "live")


def opened(runs_dir: Path, run: str) -> list[str]:
    """Captions of the Live page with the panel unfolded."""
    app = live(runs_dir, run)
    app.session_state[f"speed/{run}"] = True
    app.run()
    assert not app.exception
    return [str(caption.value) for caption in app.caption]


def test_waiting_that_dominates_is_said_with_what_to_do(runs_dir: Path) -> None:
    said = read(live(runs_dir, "waits"), "info")
    assert "75% of the last 20 steps' time went into waiting for data: 30 ms a step" in said
    assert "workers: 2 or more" in said


def test_waiting_that_does_not_matter_is_not_mentioned(runs_dir: Path) -> None:
    assert "waiting for data" not in read(live(runs_dir, "computes"), "info")


def test_what_is_measured_is_said_under_the_chart(runs_dir: Path) -> None:
    assert any(
        "from asking the loader to having them" in text for text in opened(runs_dir, "waits")
    )


def test_a_script_that_does_not_measure_it_is_told_how(runs_dir: Path) -> None:
    assert any(
        "n/a" in text and "watch.batches(loader)" in text for text in opened(runs_dir, "script")
    )
