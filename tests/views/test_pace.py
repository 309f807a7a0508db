"""The speed of a run that rests or has ended is that by the clock, and jumps to no other."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from inspector.events import Resumed, StoredEvent
from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer
from inspector.views.pace import pace
from inspector.views.state import StateKeeper

KEYS = (SeriesKey("step_time"),)


def recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, times: list[float], state: str = "finished"
) -> Run:
    """A run whose steps of a millisecond each ended at these seconds."""
    now = [0.0]
    for module in ("chunks", "intake"):
        monkeypatch.setattr(f"inspector.store.{module}.steady", lambda: now[0])
    path = create_run(folder, "run", {"config": {}})
    with closing(Writer(path)) as writer:
        for step, seconds in enumerate(times):
            now[0] = 1000.0 + seconds
            writer.append("scalar", step, KEYS, np.array([0.001], np.float32))
            writer.flush()
        writer.heartbeat(len(times), state)
    return Run(path)


def test_slow_motion_counts_in_the_last_five_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [0.01 * step for step in range(50)] + [10 + 0.5 * step for step in range(20)]
    with recorded(tmp_path, monkeypatch, times) as run:
        assert pace(run) == pytest.approx(0.5)
        assert StateKeeper().state(run).pace == pytest.approx(0.5)


def test_a_pause_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = [0.5 * step for step in range(8)] + [7.0 + 0.5 * step for step in range(4)]
    with recorded(tmp_path, monkeypatch, times, state="paused") as run:
        assert pace(run, since=1006.9) == pytest.approx(0.5)
        keeper = StateKeeper()
        keeper.take([StoredEvent(1, 8, 0, 1006.9, 0, Resumed())])
        assert keeper.state(run).pace == pytest.approx(0.5)
        assert pace(run) != pytest.approx(0.5)


def test_steps_slower_than_the_window_are_still_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorded(tmp_path, monkeypatch, [0.0, 8.0, 16.0]) as run:
        assert pace(run) == pytest.approx(8.0)


def test_what_was_too_short_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with recorded(tmp_path, monkeypatch, [0.0, 0.2, 0.4]) as run:
        assert pace(run) is None
        assert StateKeeper().state(run).pace is None
