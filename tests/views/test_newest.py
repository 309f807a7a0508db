"""The newest value of a series is one that was measured, wherever its rows are thinned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inspector.quantities import SeriesKey
from inspector.store.layout import ABSENT, create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer
from inspector.views.compare import outcome
from inspector.views.newest import newest

KEYS = (SeriesKey("lr"), SeriesKey("val_loss"))


def recorded(folder: Path, rows: int, measured: int, *, after: int) -> Run:
    """``lr`` is the step in ``measured`` rows and in none of the others, of which ``after`` end."""
    writer = Writer(create_run(folder, "run", {"kind": "watched"}))
    values = np.ones((rows, 2), np.float32)
    values[:, 0] = ABSENT
    there = slice(rows - after - measured, rows - after)
    values[there, 0] = np.arange(rows)[there]
    writer.extend("scalar", 0, KEYS, values)
    writer.close()
    return Run(folder / "run")


@pytest.mark.parametrize(
    ("rows", "measured", "after"),
    [(1, 1, 0), (3, 2, 1), (200, 199, 1), (4000, 3999, 1), (4000, 1, 3999), (4000, 2, 3000)],
)
def test_rows_without_the_number_may_follow(
    tmp_path: Path, rows: int, measured: int, after: int
) -> None:
    last = rows - after - 1
    with recorded(tmp_path, rows, measured, after=after) as run:
        assert newest(run, "lr") == (last, last)
        found = outcome(run, "lr")
    assert found is not None
    assert found.last == last


def test_what_was_never_measured_has_none(tmp_path: Path) -> None:
    with recorded(tmp_path, 300, 0, after=0) as run:
        assert newest(run, "lr") is None
        assert newest(run, "accuracy") is None
