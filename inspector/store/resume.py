"""Taking a rank file up again: who may write it, and where its groups were left."""

from __future__ import annotations

import json
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from inspector.errors import StoreError
from inspector.quantities import SeriesKey
from inspector.store.encoder import Group
from inspector.store.layout import ABSENT, F32, FANOUT, FORMAT, I64, LEVELS, cut_off
from inspector.store.process import Process
from inspector.store.query import Source, count_rows, cover, raw
from inspector.store.rollup import Buckets, Pyramid, combine, concatenate

FRESH_SECONDS = 5.0
"""A process on another host counts as alive while its last beat is not older than this."""


def read_meta(db: sqlite3.Connection) -> dict[str, Any]:
    return {key: json.loads(value) for key, value in db.execute("SELECT key, value FROM meta")}


def writer_alive(db: sqlite3.Connection, path: Path, meta: dict[str, Any]) -> bool | None:
    """Whether the process that claimed the file writes it; None when nobody claims it any more."""
    if "writer" not in meta:
        return None
    if cut_off(path).exists():
        return False
    alive = Process.from_dict(meta["writer"]).alive()
    if alive is not None:
        return alive
    beat = db.execute("SELECT beat FROM heartbeat").fetchone()
    return beat is not None and abs(time.time() - beat[0]) < FRESH_SECONDS


def claim(db: sqlite3.Connection, path: Path, rank: int, meta: dict[str, Any] | None) -> None:
    """Makes this process the file's writer.

    Raises:
        StoreError: another writer has it, or a newer version wrote it.
    """
    db.execute("BEGIN IMMEDIATE")
    try:
        before = read_meta(db)
        if before.get("format", FORMAT) > FORMAT:
            raise StoreError(
                f"{path} has format {before['format']}, but this version writes {FORMAT}; "
                "upgrade torch-inspector."
            )
        if writer_alive(db, path, before):
            raise StoreError(
                f"Expected {path} to have no writer, but process {before['writer']['pid']} "
                "writes it; give each run a name, and each process of a run a rank, of its own."
            )
        content = {
            "format": FORMAT,
            "uuid": before.get("uuid", uuid.uuid4().hex),
            "rank": rank,
            "sqlite": sqlite3.sqlite_version,
            "writer": Process.current().to_dict(),
            "meta": {**before.get("meta", {}), **(meta or {})},
        }
        set_meta(db, content)
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
    cut_off(path).unlink(missing_ok=True)


def set_meta(db: sqlite3.Connection, content: dict[str, Any]) -> None:
    rows = [(key, json.dumps(value, default=str)) for key, value in content.items()]
    db.executemany("INSERT OR REPLACE INTO meta(key, value) VALUES (?,?)", rows)


def load_groups(db: sqlite3.Connection, path: Path) -> dict[str, Group]:
    """The groups as the last writer left them; the open ends of the pyramids are rebuilt."""
    damages: list[str] = []  # For readers to report; here finer data or ABSENT steps in.
    source = Source(db, path.name, damages.append, strict=True)
    columns: dict[str, dict[SeriesKey, int]] = {}
    for name, column, *key in source.rows(
        "SELECT grp, col, quantity, scope, subject FROM series ORDER BY col"
    ):
        columns.setdefault(name, {})[SeriesKey(*key)] = column
    return {name: _load_group(source, name, own) for name, own in columns.items()}


def _load_group(source: Source, name: str, columns: dict[SeriesKey, int]) -> Group:
    total = count_rows(source, name)
    last = source.rows("SELECT max(last) FROM chunk WHERE grp=? AND stripe=0", name)[0][0]
    everything: I64 = np.arange(len(columns))
    start = _rolled(source, name, 1)
    pyramid = Pyramid(name, start)
    for level in range(2, len(LEVELS) + 1):
        begin = _rolled(source, name, level)
        end = _rolled(source, name, level - 1)
        finer = [
            _transposed(combine(part, np.zeros(1, np.int64), axis=1))
            for rows, part in cover(source, name, everything, level - 1, begin, end)
            if len(rows) == FANOUT
        ]
        pyramid.restore(level, begin, concatenate(finer, axis=0) if finer else None)
    steps, values = _every_row(source, name, everything, start, total)
    for sql, parameters in pyramid.add(steps, values) if len(steps) else ():
        source.db.execute(sql, tuple(parameters))
    return Group(name, columns, total, -1 if last is None else last, pyramid)


def _rolled(source: Source, name: str, level: int) -> int:
    """The first row that a level does not cover."""
    found = source.rows("SELECT max(row) FROM roll WHERE grp=? AND level=?", name, level)
    row = found[0][0] if found else None
    return 0 if row is None else int(row) + FANOUT * LEVELS[level - 1]


def _transposed(part: Buckets) -> Buckets:
    return Buckets(
        part.first, part.last, part.low.T, part.high.T, part.mean.T, part.finite.T, part.nonfinite.T
    )


def _every_row(source: Source, name: str, columns: I64, lo: int, hi: int) -> tuple[I64, F32]:
    """Steps [m] and rows [m, k], where damaged rows are ABSENT: buckets count rows."""
    rows, steps, values = raw(source, name, columns, lo, hi)
    all_steps: I64 = np.zeros(hi - lo, np.int64)
    all_rows: F32 = np.full((hi - lo, len(columns)), ABSENT, np.float32)
    all_steps[rows - lo] = steps
    all_rows[rows - lo] = values.T
    return np.maximum.accumulate(all_steps), all_rows
