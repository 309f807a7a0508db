"""One rank's database, opened read-only: groups, rows, events, documents, signs of life."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np

from inspector.errors import StoreError
from inspector.events import Event, StoredEvent, Unknown, decode
from inspector.quantities import SeriesKey
from inspector.store.chunks import decode_chunk
from inspector.store.database import open_reader
from inspector.store.layout import ABSENT, F32, F64, I64, STRIPE, cut_off
from inspector.store.query import Source, raw, row_range, walls
from inspector.store.records import (
    Cursor,
    Delta,
    Heartbeat,
    Histogram,
    RawRows,
    Rows,
    Status,
)
from inspector.store.resume import read_meta, writer_alive


class RankFile:
    """Reads ``rankNNNNN.db``; safe to share between threads. Every query is its own transaction:
    one held open would keep the writer from shrinking its WAL."""

    def __init__(self, path: Path, rank: int, report: Callable[[str], None]) -> None:
        """Raises StoreError when the file is no database that can be read."""
        self.path = path
        self.rank = rank
        self.lock = threading.RLock()
        try:
            db, self._copy = open_reader(path)
        except sqlite3.Error as error:
            raise StoreError(
                f"Expected a rank file of a run at {path}, but got: {error}."
            ) from error
        self.source = Source(db, path.name, report)
        self._groups: dict[str, list[SeriesKey]] = {}
        self._series = 0
        self._end: tuple[int, Cursor] | None = None

    def close(self) -> None:
        with self.lock:
            self.source.db.close()
            if self._copy is not None:
                self._copy.cleanup()

    def ready(self) -> bool:
        """Whether the writer has made the tables."""
        with self.lock:
            found = self.source.rows("SELECT 1 FROM sqlite_master WHERE name = 'heartbeat'")
            return bool(found)

    def groups(self) -> dict[str, list[SeriesKey]]:
        """The columns of each group."""
        with self.lock:
            new = self.source.rows(
                "SELECT id, grp, quantity, scope, subject FROM series WHERE id > ? ORDER BY id",
                self._series,
            )
            for number, group, quantity, scope, subject in new:
                self._groups.setdefault(group, []).append(SeriesKey(quantity, scope, subject))
                self._series = number
            return self._groups

    def find(self, quantity: str, subjects: Collection[str] | None) -> tuple[str, I64, list[str]]:
        """Group, columns and subjects of a quantity, in the order of recording."""
        for group, keys in self.groups().items():
            columns = [
                column
                for column, key in enumerate(keys)
                if key.quantity == quantity and (subjects is None or key.subject in subjects)
            ]
            if columns:
                return group, np.array(columns, np.int64), [keys[at].subject for at in columns]
        return "", np.empty(0, np.int64), []

    def clock(self) -> tuple[I64, F64]:
        """Steps, rising, and the times (seconds since 1970) at which rows of them were taken in."""
        with self.lock:
            found = self.source.rows(
                "SELECT first, t0, last, t1 FROM chunk WHERE stripe=0 ORDER BY id"
            )
        knots = np.array(found, np.float64).reshape(-1, 2)
        steps, places = np.unique(knots[:, 0].astype(np.int64), return_index=True)
        return steps, np.maximum.accumulate(knots[places, 1])

    def meta(self) -> dict[str, Any]:
        with self.lock:
            try:
                return read_meta(self.source.db)
            except (sqlite3.Error, ValueError) as error:
                self.source.report(f"The description in {self.path.name} is damaged ({error}).")
                return {}

    def heartbeat(self) -> Heartbeat | None:
        with self.lock:
            found = self.source.rows(
                "SELECT step, state, total_steps, wall, beat, facts FROM heartbeat"
            )
            if not found:
                return None
            alive = self._alive(self.meta())
        step, state, total_steps, wall, beat, facts = found[0]
        if alive is False:  # it died between two heartbeats; its last rows may be younger
            step = max(step, self._recorded())
        return Heartbeat(step, state, total_steps, wall, beat, alive, json.loads(facts))

    def _recorded(self) -> int:
        """How many steps there are rows of."""
        with self.lock:
            ends = [
                self.source.rows("SELECT MAX(last) FROM chunk WHERE grp = ? AND stripe = 0", group)
                for group in self.groups()
            ]
        return max((row[0][0] + 1 for row in ends if row and row[0][0] is not None), default=0)

    def _alive(self, meta: dict[str, Any]) -> bool | None:
        try:
            return writer_alive(self.source.db, self.path, meta)
        except (sqlite3.Error, KeyError, TypeError, ValueError):
            return None

    def status(self) -> Status:
        with self.lock:
            final = self.source.rows(
                "SELECT kind, json FROM event WHERE kind IN "
                "('run_started', 'run_finished', 'run_failed') ORDER BY seq DESC LIMIT 1"
            )
            kind = final[0][0] if final else ""
            if kind == "run_failed":
                return "failed"
            if kind == "run_finished":
                return "stopped" if _reason(final[0][1]) == "stopped" else "finished"
            if cut_off(self.path).exists():
                return "crashed"
            meta = self.meta()
            if self._alive(meta):
                state = self.source.rows("SELECT state FROM heartbeat")
                return "paused" if state and state[0][0] == "paused" else "running"
            if "closed" in meta and "writer" not in meta:
                recorded = self.source.rows("SELECT 1 FROM chunk LIMIT 1")
                return "finished" if recorded or final else "empty"
            return "crashed" if "writer" in meta else "empty"

    def events(self, after: int = 0) -> list[StoredEvent]:
        with self.lock:
            rows = self.source.rows(
                "SELECT seq, step, wall, mono_ns, kind, json FROM event WHERE seq > ? ORDER BY seq",
                after,
            )
        return [
            StoredEvent(seq, step, self.rank, wall, mono, _decode(kind, text))
            for seq, step, wall, mono, kind, text in rows
        ]

    def document(self, kind: str, step: int | None) -> dict[str, Any] | None:
        with self.lock:
            found = self.source.rows(
                "SELECT json FROM document WHERE kind=? AND step<=? "
                "ORDER BY step DESC, id DESC LIMIT 1",
                kind,
                2**62 if step is None else step,
            )
        content = json.loads(found[0][0]) if found else None
        return content if isinstance(content, dict) else None

    def documents(self, kind: str) -> list[tuple[int, float]]:
        with self.lock:
            return self.source.rows(
                "SELECT step, wall FROM document WHERE kind=? ORDER BY step, id", kind
            )

    def histograms(self, kind: str, subject: str) -> list[Histogram]:
        with self.lock:
            rows = self.source.rows(
                "SELECT step, low, high, counts FROM histogram "
                "WHERE kind=? AND subject=? ORDER BY step, id",
                kind,
                subject,
            )
        return [
            Histogram(step, _number(low), _number(high), np.frombuffer(counts, "<i8"))
            for step, low, high, counts in rows
        ]

    def windows(self, rows: int) -> list[tuple[int, int]]:
        """First and last steps of windows that hold about so many rows of all groups together."""
        with self.lock:
            chunks = self.source.rows("SELECT last, n FROM chunk WHERE stripe=0 ORDER BY last")
        found: list[tuple[int, int]] = []
        first, held = 0, 0
        for at, (last, count) in enumerate(chunks):
            held += count
            if held >= rows or at + 1 == len(chunks):
                if last >= first:
                    found.append((first, last))
                first, held = last + 1, 0
        return found

    def raw_rows(self, first: int, last: int) -> list[RawRows]:
        """The rows of each group over the steps ``first`` to ``last``, both included."""
        with self.lock:
            found = []
            for group, keys in self.groups().items():
                lo, hi = row_range(self.source, group, first, last)
                if lo < hi:
                    columns: I64 = np.arange(len(keys))
                    rows, steps, values = raw(self.source, group, columns, lo, hi)
                    times = walls(self.source, group, lo, hi)[rows - lo]
                    found.append(RawRows(tuple(keys), steps, times, values))
        return found

    def tail(
        self, cursor: Cursor | None, keys: Collection[SeriesKey] | None
    ) -> tuple[Cursor, Delta]:
        with self.lock:
            version = int(self.source.db.execute("PRAGMA data_version").fetchone()[0])
            if cursor is not None and self._end == (version, cursor):
                return cursor, Delta()
            if cursor is None:
                end = self._newest()
                delta = Delta()
            else:
                end, delta = self._since(cursor, keys)
            self._end = version, end
            return end, delta

    def _newest(self) -> Cursor:
        found = self.source.rows("SELECT (SELECT max(id) FROM chunk), (SELECT max(seq) FROM event)")
        return Cursor(*(place or 0 for place in found[0])) if found else Cursor()

    def _since(self, cursor: Cursor, keys: Collection[SeriesKey] | None) -> tuple[Cursor, Delta]:
        # Chunks up to the newest known now; what is committed meanwhile is for the next call.
        newest = self._newest()
        groups = self.groups()
        rows = {}
        for group, own in groups.items():
            wanted = np.array(
                [at for at, key in enumerate(own) if keys is None or key in keys], np.int64
            )
            if len(wanted):
                found = self._new_rows(group, wanted, cursor.chunk, newest.chunk)
                if found is not None:
                    rows[group] = Rows(tuple(own[at] for at in wanted), *found)
        events = self.events(cursor.event)
        end = Cursor(newest.chunk, events[-1].seq if events else cursor.event)
        return end, Delta(rows, events)

    def _new_rows(
        self, group: str, columns: I64, after: int, newest: int
    ) -> tuple[I64, F32, float] | None:
        needed = ",".join(str(stripe) for stripe in np.unique(columns // STRIPE))
        chunks: dict[int, list[tuple[int, I64, F32]]] = {}
        wall = 0.0
        for row, stripe, count, first, stop, crc, steps, values in self.source.rows(
            "SELECT row, stripe, n, first, t1, crc, steps, v FROM chunk "
            f"WHERE id > ? AND id <= ? AND grp = ? AND stripe IN ({needed}) ORDER BY id",
            after, newest, group,
        ):  # fmt: skip
            decoded = decode_chunk(count, first, crc, steps, values)
            if decoded is None:
                self.source.report(
                    f"{count} rows of {group} from step {first} in {self.path.name} are damaged "
                    "(their checksum is wrong) and left out."
                )
            else:
                chunks.setdefault(row, []).append((stripe, *decoded))
                wall = max(wall, stop)
        if not chunks:
            return None
        parts = [_join(parts, columns) for _, parts in sorted(chunks.items())]
        steps_of = np.concatenate([part[0] for part in parts])
        return steps_of, np.concatenate([part[1] for part in parts], axis=1), wall


def _number(stored: float | None) -> float:
    """SQLite stores NaN as NULL."""
    return np.nan if stored is None else stored


def _join(parts: list[tuple[int, I64, F32]], columns: I64) -> tuple[I64, F32]:
    steps = parts[0][1]
    whole: F32 = np.full((len(columns), len(steps)), ABSENT, np.float32)
    for stripe, _, values in parts:
        inner = columns - stripe * STRIPE
        inside = (inner >= 0) & (inner < len(values))
        whole[inside] = values[inner[inside]]
    return steps, whole


def _decode(kind: str, text: str) -> Event:
    try:
        return decode(kind, text)
    except (ValueError, TypeError, AttributeError) as error:
        return Unknown(original_kind=kind, fields={"json": text, "error": str(error)})


def _reason(text: str) -> str:
    try:
        return str(json.loads(text).get("reason", ""))
    except (ValueError, AttributeError):
        return ""
