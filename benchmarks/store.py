"""Steps written a second and the time to open a whole run: our store beside a row per value.

    python benchmarks/store.py                       a quick look
    python benchmarks/store.py --steps 1000000       the figure in the README (8 GB on the disk)

Both stores are measured in one run, in alternating rounds, on the same disk. The baseline is what
one writes first: SQLite, WAL, one row per value, an index, a commit every 64 steps.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from inspector.quantities import SeriesKey
from inspector.store.layout import create_run
from inspector.store.reader import Run
from inspector.store.writer import Writer

QUANTITIES = ("grad_norm", "grad_max", "weight_norm", "update_ratio")


def series(count: int) -> tuple[SeriesKey, ...]:
    per = max(1, count // len(QUANTITIES))
    keys = [SeriesKey(q, "parameter", f"layers.{i}.weight") for q in QUANTITIES for i in range(per)]
    return tuple(keys[:count])


def write_ours(directory: Path, steps: int, keys: tuple[SeriesKey, ...]) -> tuple[Path, float]:
    """The run and the steps a second, until the last row is committed."""
    path = create_run(directory, "ours", {})
    rows = np.random.default_rng(0).random((256, len(keys)), np.float32)
    writer = Writer(path, queue_rows=2048)
    start = time.perf_counter()
    for step in range(steps):
        writer.append("parameter", step, keys, rows[step % 256])
        if step % 1024 == 1023:
            # A benchmark may wait, training may not: without this the queue would drop rows.
            writer.flush(60)
    assert writer.flush(60)
    elapsed = time.perf_counter() - start
    writer.close()
    assert writer.dropped == 0, f"{writer.dropped} rows dropped"
    return path, steps / elapsed


def append_cost(directory: Path, keys: tuple[SeriesKey, ...]) -> float:
    """Median microseconds of one ``append`` at 1,000 steps a second."""
    writer = Writer(create_run(directory, "append", {}))
    row = np.ones(len(keys), np.float32)
    spent = []
    for step in range(2000):
        start = time.perf_counter()
        writer.append("parameter", step, keys, row)
        spent.append(time.perf_counter() - start)
        time.sleep(0.001)
    writer.close()
    return statistics.median(spent) * 1e6


def write_rows(directory: Path, steps: int, keys: tuple[SeriesKey, ...]) -> tuple[Path, float]:
    path = directory / "rows.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("CREATE TABLE value(series INTEGER, step INTEGER, v REAL)")
    db.execute("CREATE INDEX place ON value(series, step)")
    row = np.random.default_rng(0).random(len(keys)).tolist()
    start = time.perf_counter()
    for begin in range(0, steps, 64):
        db.execute("BEGIN")
        for step in range(begin, min(begin + 64, steps)):
            db.executemany(
                "INSERT INTO value VALUES (?,?,?)", [(i, step, v) for i, v in enumerate(row)]
            )
        db.execute("COMMIT")
    elapsed = time.perf_counter() - start
    db.close()
    return path, steps / elapsed


def open_ours(path: Path) -> tuple[float, int]:
    """Milliseconds from nothing to a downsampled series of the whole run, and its points."""
    start = time.perf_counter()
    with Run(path) as run:
        found = run.series("grad_norm", "layers.7.weight", max_points=2000)
    return (time.perf_counter() - start) * 1e3, len(found)


def open_matrix(path: Path) -> float:
    start = time.perf_counter()
    with Run(path) as run:
        run.matrix("grad_norm", max_points=300)
    return (time.perf_counter() - start) * 1e3


def open_rows(path: Path) -> float:
    start = time.perf_counter()
    db = sqlite3.connect(path)
    np.array(db.execute("SELECT step, v FROM value WHERE series = 7 ORDER BY step").fetchall())
    db.close()
    return (time.perf_counter() - start) * 1e3


def spread(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 2),
        "min": round(min(values), 2),
        "max": round(max(values), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000, help="steps of our run")
    parser.add_argument("--series", type=int, default=1600)
    parser.add_argument("--baseline-steps", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dir", type=Path, default=None, help="where to write; default: temporary")
    options = parser.parse_args()
    keys = series(options.series)
    figures: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    for _ in range(options.rounds):
        directory = Path(tempfile.mkdtemp(prefix="store-benchmark-", dir=options.dir))
        try:
            ours, speed = write_ours(directory, options.steps, keys)
            note("steps/s written, ours", speed)
            note("bytes per step, ours", (ours / "rank00000.db").stat().st_size / options.steps)
            rows, speed = write_rows(directory, options.baseline_steps, keys)
            note("steps/s written, a row per value", speed)
            note("append, µs", append_cost(directory, keys))
            for _ in range(5):
                note(f"whole run of {options.steps} steps, one series, ms", open_ours(ours)[0])
                note(f"whole run of {options.steps} steps, heat map, ms", open_matrix(ours))
                note(f"{options.baseline_steps} steps, a row per value, ms", open_rows(rows))
        finally:
            shutil.rmtree(directory)
    result = {name: spread(values) for name, values in figures.items()}
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
