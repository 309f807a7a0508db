"""The pyramid against numpy on the raw rows, whatever is in them and however they were cut."""

from __future__ import annotations

import itertools
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspector.quantities import SeriesKey
from inspector.store.layout import ABSENT, LEVELS, create_run, is_absent
from inspector.store.reader import Run, Series
from inspector.store.writer import Writer

Rows = npt.NDArray[np.float32]


def hostile_rows(seed: int, count: int, width: int, share: float) -> Rows:
    """Random rows of all magnitudes, with NaN, infinities and ABSENT strewn in."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((count, width)) * 10.0 ** rng.integers(-30, 30, (count, width))
    rows = rows.astype(np.float32)
    for odd in (np.float32(np.nan), np.float32(np.inf), np.float32(-np.inf), ABSENT):
        rows[rng.random((count, width)) < share] = odd
    return rows


def check(found: Series, steps: npt.NDArray[np.int64], column: Rows, max_points: int) -> None:
    """What numpy says about each bucket of the raw column."""
    assert len(found) <= max_points
    at = 0
    for start in range(0, len(column), found.bucket):
        part = column[start : start + found.bucket]
        here = ~is_absent(part)
        part = part[here]
        if not len(part):
            continue
        good = part[np.isfinite(part)].astype(np.float64)
        assert found.steps[at] == steps[start : start + found.bucket][here][-1]
        assert found.nonfinite[at] == len(part) - len(good)
        if len(good):
            assert found.low[at] == np.float32(good.min())
            assert found.high[at] == np.float32(good.max())
        else:
            assert np.isnan(found.low[at]) and np.isnan(found.high[at])
        if len(good) < len(part):
            assert np.isnan(found.values[at])
        else:
            scale = np.abs(good).max()
            assert abs(found.values[at] - good.mean()) <= 1e-5 * scale + 1e-37
        at += 1
    assert at == len(found)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 1500),
    width=st.sampled_from([1, 3, 130]),
    share=st.sampled_from([0.0, 0.001, 0.4]),
    max_points=st.integers(2, 60),
    flushes=st.sets(st.integers(0, 1500), max_size=6),
    reopen=st.sets(st.integers(0, 1500), max_size=2),
)
def test_buckets_equal_numpy(
    seed: int, count: int, width: int, share: float, max_points: int,
    flushes: set[int], reopen: set[int],
) -> None:  # fmt: skip
    rows = hostile_rows(seed, count, width, share)
    keys = tuple(SeriesKey("grad_norm", "parameter", str(i)) for i in range(width))
    steps = np.arange(count, dtype=np.int64) * 3
    with tempfile.TemporaryDirectory() as directory:
        path = create_run(directory, "run", {})
        writer = Writer(path)
        for at, row in enumerate(rows):
            writer.append("parameter", int(steps[at]), keys, row)
            if at in reopen:
                writer.close()
                writer = Writer(path)
            elif at in flushes:
                writer.flush()
        writer.close()
        assert writer.dropped == 0
        with Run(path) as run:
            for column in {0, width - 1}:
                found = run.series("grad_norm", str(column), max_points=max_points)
                if found.bucket > 1:
                    check(found, steps, rows[:, column], max_points)
            assert run.problems == []


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Rows]:
    """70,000 rows: all three levels have stored rows, and each an open end."""
    rows = hostile_rows(5, 70_000, 2, 0.0003)
    path = create_run(tmp_path_factory.mktemp("runs"), "long", {})
    keys = (SeriesKey("loss"), SeriesKey("mine"))
    with_queue = Writer(path, queue_rows=100_000)
    for step, row in enumerate(rows):
        with_queue.append("scalar", step, keys, row)
    with_queue.close()
    assert with_queue.dropped == 0
    return path, rows


@pytest.mark.parametrize("max_points", [10, 20, 300, 3000])
def test_every_level_equals_numpy(long_run: tuple[Path, Rows], max_points: int) -> None:
    path, rows = long_run
    with Run(path) as run:
        check(run.series("mine", max_points=max_points), np.arange(70_000), rows[:, 1], max_points)
        first, last = 10_000 - 10_000 % 8192, 65_000
        part = run.series("mine", max_points=max_points, first=first, last=last)
        assert part.steps[-1] == last
        lowest = rows[first : last + 1, 1]
        assert np.nanmin(part.low) == lowest[np.isfinite(lowest)].min()
        assert part.nonfinite.sum() == (~np.isfinite(lowest) & ~is_absent(lowest)).sum()


def test_a_single_nan_stays_visible(tmp_path: Path) -> None:
    path = create_run(tmp_path, "run", {})
    writer = Writer(path, queue_rows=100_000)
    for step in range(20_000):
        writer.append("scalar", step, (SeriesKey("loss"),), [np.nan if step == 12_345 else 1.0])
    writer.close()
    with Run(path) as run:
        found = run.series("loss", max_points=50)
    (at,) = np.flatnonzero(np.isnan(found.values))
    assert found.nonfinite[at] == 1 and found.low[at] == 1.0
    assert found.steps[at] - found.bucket < 12_345 <= found.steps[at]


@pytest.mark.parametrize("level", [1, 2, 3])
def test_a_damaged_summary_is_replaced_by_finer_data(
    long_run: tuple[Path, Rows], level: int, tmp_path: Path
) -> None:
    path, rows = long_run
    copy = create_run(tmp_path, "copy", {})
    (copy / "rank00000.db").write_bytes((path / "rank00000.db").read_bytes())
    with sqlite3.connect(copy / "rank00000.db") as db:
        db.execute("UPDATE roll SET v = zeroblob(length(v)) WHERE level = ?", (level,))
    max_points = -(-70_000 // LEVELS[level - 1]) + 1
    with Run(copy) as run:
        check(run.series("loss", max_points=max_points), np.arange(70_000), rows[:, 0], max_points)
        assert any("summary" in sentence for sentence in run.problems)


@pytest.mark.parametrize("seed", range(4))
def test_a_sparse_series_names_the_steps_at_which_it_was_measured(
    tmp_path: Path, seed: int
) -> None:
    """Against a plain loop over the rows; the third series is all there, but begins late."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(8_000, 14_000))
    steps = np.cumsum(rng.integers(1, 4, count))
    rows = rng.standard_normal((count, 3)).astype(np.float32)
    rows[np.arange(count) % 100 != rng.integers(100), 0] = ABSENT
    rows[rng.random(count) > 0.004, 1] = ABSENT
    rows[: count // 3, 2] = ABSENT
    rows[rng.random(count) < 0.001, 0] = np.nan
    keys = tuple(SeriesKey(f"s{at}") for at in range(3))
    path = create_run(tmp_path, "run", {"kind": "watched"})
    writer = Writer(path, queue_rows=100_000)
    for at, step in enumerate(steps):
        known = 2 if at < count // 3 else 3  # a column that is not there yet
        writer.append("scalar", int(step), keys[:known], rows[at, :known])
        if at % 5000 == 0:
            writer.flush()
    writer.close()
    assert writer.dropped == 0
    with Run(path) as run:
        for at, low, points in itertools.product(range(3), (0, count // 5), (7, 60, 400)):
            high = count - 1 - low // 2
            found = run.series(
                f"s{at}", max_points=points, first=int(steps[low]), last=int(steps[high])
            )
            last: dict[int, int] = {}
            for row in range(low, high + 1):
                if not is_absent(rows[row : row + 1, at])[0]:
                    last[row // found.bucket] = int(steps[row])
            assert found.bucket > 1
            assert found.steps.tolist() == list(last.values())
