"""The only way into a rank file: a bounded queue in front of one thread with one connection."""

from __future__ import annotations

import atexit
import ctypes
import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inspector.errors import StoreError
from inspector.events import Event, TelemetryDropped, encode
from inspector.quantities import SeriesKey
from inspector.store.chunks import Block, Statement
from inspector.store.database import close_writer, open_writer
from inspector.store.encoder import Encoder
from inspector.store.layout import CHUNK_ROWS, rank_file
from inspector.store.resume import claim, load_groups, set_meta

COMMIT_SECONDS = 0.05
"""A row waits at most this long (a full block of CHUNK_ROWS does not wait)."""
BEAT_SECONDS = 1.0
RETRY_SECONDS = 0.25
GIVE_UP_SECONDS = 2.0

_EVENT = "INSERT INTO event(step, wall, mono_ns, kind, json) VALUES (?,?,?,?,?)"
_DOCUMENT = "INSERT INTO document(kind, step, wall, json) VALUES (?,?,?,?)"
_HISTOGRAM = "INSERT INTO histogram(kind, subject, step, low, high, counts) VALUES (?,?,?,?,?,?)"
_HEARTBEAT = (
    "INSERT OR REPLACE INTO heartbeat(id, step, state, total_steps, wall, beat, facts) "
    "VALUES (1,?,?,?,?,?,?)"
)
_SLOW = "the disk could not keep up"
_ORDER = "steps of a group must rise"


class _Lane:
    """Where the rows of one group come in."""

    __slots__ = ("block", "last")

    def __init__(self, last: int) -> None:
        self.block: Block | None = None
        self.last = last


@dataclass(slots=True)
class _Batch:
    """What one transaction writes; kept and tried again when the disk refuses it."""

    statements: list[Statement]
    rows: int
    marks: list[threading.Event]


@dataclass(slots=True)
class _Intake:
    """What waits for the writer thread; guarded by the writer's lock."""

    lanes: dict[str, _Lane] = field(default_factory=dict)
    full: list[Block] = field(default_factory=list)
    statements: list[Statement] = field(default_factory=list)
    marks: list[threading.Event] = field(default_factory=list)
    queued: int = 0
    unreported: int = 0


class Writer:
    """Writes one rank of a run; its methods may be called from any thread.

    ``append`` costs microseconds: it copies the row into memory. After a kill of the process, what
    a successful :meth:`flush` covered is there, and of the rest at most COMMIT_SECONDS is missing.
    A forked child inherits a writer that does nothing.

    Attributes:
        dropped: rows that were thrown away so far (queue full, disk trouble, wrong order).
        trouble: a sentence about what is wrong with the disk at the moment; empty when all is well.
    """

    def __init__(
        self,
        run_dir: str | Path,
        *,
        rank: int = 0,
        meta: dict[str, Any] | None = None,
        queue_rows: int = 4096,
    ) -> None:
        """Opens ``rankNNNNN.db``; a file that a dead or closed writer left is taken up again.

        Raises:
            StoreError: the directory cannot be written, or another writer has the file.
        """
        self.dropped = 0
        self.trouble = ""
        self.path = rank_file(Path(run_dir), rank)
        self._queue_rows = queue_rows
        self._reason = _SLOW
        try:
            Path(run_dir).mkdir(parents=True, exist_ok=True)
            self._db = open_writer(self.path)
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"Expected to write {self.path}, but got: {error}; choose another run directory."
            ) from error
        try:
            claim(self._db, self.path, rank, meta)
            groups = load_groups(self._db, self.path)
            self._inode = self.path.stat().st_ino
        except (OSError, ValueError, sqlite3.Error) as error:
            self._db.close()
            raise StoreError(
                f"Expected a rank file at {self.path}, but got: {error}; move it away."
            ) from error
        except StoreError:
            self._db.close()
            raise
        self._encoder = Encoder(groups)
        self._intake = _Intake({name: _Lane(group.last) for name, group in groups.items()})
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._hurry = self._closing = self._inert = self._ended = False
        self._beat: tuple[int, str, int | None, float, dict[str, Any]] | None = None
        self._stored = ""  # the state of the stored heartbeat
        self._batch: _Batch | None = None
        _writers.add(self)
        atexit.register(self.close)
        self._thread = threading.Thread(
            target=self._run, name=f"inspector-writer-{rank}", daemon=True
        )
        self._thread.start()

    # The training thread's side.

    def append(
        self,
        group: str,
        step: int,
        keys: Sequence[SeriesKey],
        values: npt.NDArray[np.float32] | Sequence[float],
    ) -> None:
        """Adds one row to a group; ``values[i]`` belongs to ``keys[i]``.

        Pass the same tuple object as ``keys`` at every step: then only its identity is looked at.
        A key that is new adds a column; a column that is missing is ABSENT in this row. Never
        blocks: rows that cannot be taken are counted in ``dropped``, and a ``telemetry_dropped``
        event is stored when writing works again.

        Raises:
            ValueError: there are not as many values as keys.
        """
        if self._inert:
            return
        with self._lock:
            intake = self._intake
            lane = intake.lanes.get(group)
            if lane is None:
                lane = intake.lanes[group] = _Lane(-1)
            if intake.queued >= self._queue_rows or step <= lane.last:
                self._drop(1, _ORDER if step <= lane.last else self.trouble or _SLOW)
                return
            block = lane.block
            if block is None or block.keys is not keys:
                block = self._block(lane, group, keys)
            if len(values) != block.width:
                raise ValueError(
                    f"Expected {block.width} values, one for each key, but got {len(values)}."
                )
            at = block.count
            block.values[at] = values
            block.steps[at] = step
            block.stop = time.time()
            block.count = at + 1
            lane.last = step
            intake.queued += 1
            wake = intake.queued == 1
            if at + 1 == CHUNK_ROWS:
                intake.full.append(block)
                lane.block = None
                wake = True
        if wake:
            self._wake.set()

    def event(self, step: int, event: Event) -> None:
        """Stores an event; a full queue does not drop it."""
        self._add((_EVENT, _event_row(step, event)))

    def document(self, kind: str, step: int, content: dict[str, Any]) -> None:
        """Stores a JSON document, such as the module table or an autograd graph."""
        text = json.dumps(content, default=str)
        self._add((_DOCUMENT, (kind, int(step), time.time(), text)))

    def histogram(
        self, step: int, kind: str, subject: str, low: float, high: float, counts: Sequence[int]
    ) -> None:
        """Stores counts of equal bins from ``low`` to ``high``.

        ``kind`` is ``weight``, ``gradient`` (of the parameter ``subject``) or ``activation`` (of
        the module ``subject``).
        """
        packed = np.asarray(counts, "<i8").tobytes()
        self._add((_HISTOGRAM, (kind, subject, int(step), float(low), float(high), packed)))

    def heartbeat(
        self, step: int, state: str, *, total_steps: int | None = None, **facts: Any
    ) -> None:
        """Says that training lives; the newest one is stored with the next commit."""
        changed = self._beat is None or self._beat[1] != state
        self._beat = (int(step), state, total_steps, time.time(), facts)
        if changed and not self._inert:
            self._wake.set()

    def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything so far is committed; False when the disk did not allow it."""
        if self._inert or not self._thread.is_alive():
            return self._ended
        mark = threading.Event()
        with self._lock:
            self._intake.marks.append(mark)
            self._hurry = True
        self._wake.set()
        return mark.wait(timeout)

    def close(self) -> None:
        """Writes what is left and closes the file; a second call does nothing."""
        if self._inert:
            return
        self._closing = True
        self._wake.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(60)
        self._inert = True
        atexit.unregister(self.close)
        _writers.discard(self)

    def _add(self, statement: Statement) -> None:
        if self._inert:
            return
        with self._lock:
            self._intake.statements.append(statement)
        self._wake.set()

    def _block(self, lane: _Lane, group: str, keys: Sequence[SeriesKey]) -> Block:
        """The block for a row with these keys; called with the lock held."""
        keys = keys if isinstance(keys, tuple) else tuple(keys)
        block = lane.block
        if block is not None:
            if block.keys == keys:
                block.keys = keys
                return block
            self._intake.full.append(block)
        lane.block = Block(group, keys)
        return lane.block

    def _drop(self, rows: int, reason: str) -> None:
        self.dropped += rows
        self._intake.unreported += rows
        self._reason = reason

    # The writer thread's side.

    def _run(self) -> None:
        try:
            self._serve()
        except Exception as error:  # Recording ends, training does not.
            self.trouble = f"Recording has ended ({type(error).__name__}: {error})."

    def _serve(self) -> None:
        due = checked = reported = 0.0
        give_up = float("inf")
        while True:
            now = time.monotonic()
            if self._batch is not None:
                wait = RETRY_SECONDS
            else:
                wait = due - now if self._intake.queued else BEAT_SECONDS
            if not self._closing:
                self._wake.wait(max(0.0, wait))
            elif self._batch is not None:
                time.sleep(min(wait, 0.05))
            self._wake.clear()
            now = time.monotonic()
            closing = self._closing
            if closing and give_up == float("inf"):
                give_up = now + GIVE_UP_SECONDS
            beating = now - checked >= BEAT_SECONDS
            if beating:
                checked = now
                if self._deleted():
                    return
            everything = closing or self._hurry or now >= due
            if everything:
                due = now + COMMIT_SECONDS
            if self._batch is None:
                report = closing or now - reported >= BEAT_SECONDS
                reported = now if report else reported
                self._batch = self._take(everything, report)
            self._write(beating)
            if closing and (now > give_up or not (self._batch or self._waiting())):
                self._end()
                return

    def _waiting(self) -> bool:
        intake = self._intake
        return bool(intake.queued or intake.statements or intake.marks)

    def _take(self, everything: bool, report: bool) -> _Batch | None:
        intake = self._intake
        with self._lock:
            blocks, intake.full = intake.full, []
            if everything:
                self._hurry = False
                for lane in intake.lanes.values():
                    if lane.block is not None:
                        blocks.append(lane.block)
                        lane.block = None
            statements, intake.statements = intake.statements, []
            marks, intake.marks = (intake.marks, []) if everything else ([], intake.marks)
            if report and intake.unreported:
                dropped = TelemetryDropped(rows=intake.unreported, reason=self._reason)
                step = max((lane.last for lane in intake.lanes.values()), default=0)
                statements.append((_EVENT, _event_row(max(0, step), dropped)))
                intake.unreported = 0
        rows = sum(block.count for block in blocks)
        try:
            statements = self._encoder.encode(blocks) + statements
        except Exception as error:  # A fault of ours must not end the recording.
            self._lose(rows, f"{type(error).__name__}: {error}")
            rows = 0
        return _Batch(statements, rows, marks) if statements or marks else None

    def _write(self, beating: bool) -> None:
        """One transaction; a batch that the disk refuses is kept."""
        batch, beat = self._batch, self._beat
        stored = self._stored
        if batch is None and not beating and (beat is None or beat[1] == stored):
            return
        try:
            self._transact(batch.statements if batch else [], beat)
        except sqlite3.OperationalError as error:
            self.trouble = f"{self.path.name} cannot be written: {error}"
            return
        except Exception as error:  # Trying again would fail again, for ever.
            self._lose(batch.rows if batch else 0, f"{type(error).__name__}: {error}")
            self._batch = None
            return
        self.trouble = ""
        self._batch = None
        self._stored = beat[1] if beat is not None else ""
        if batch is not None:
            with self._lock:
                self._intake.queued -= batch.rows
            for mark in batch.marks:
                mark.set()

    def _transact(
        self,
        statements: list[Statement],
        beat: tuple[int, str, int | None, float, dict[str, Any]] | None,
    ) -> None:
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            for sql, parameters in statements:
                db.execute(sql, parameters)
            now = time.time()
            if beat is None:
                db.execute("UPDATE heartbeat SET beat = ?", (now,))
            else:
                step, state, total, wall, facts = beat
                text = json.dumps(facts, default=str)
                db.execute(_HEARTBEAT, (step, state, total, wall, now, text))
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _lose(self, rows: int, reason: str) -> None:
        with self._lock:
            self._intake.queued -= rows
            self._drop(rows, reason)

    def _deleted(self) -> bool:
        """Whether the file is gone: commits into a deleted file succeed, and are lost."""
        try:
            if self.path.stat().st_ino == self._inode:
                return False
        except FileNotFoundError:
            pass
        except OSError:
            return False
        self.trouble = f"{self.path} was deleted while it was written; recording has ended."
        with self._lock:
            self._drop(self._intake.queued, self.trouble)
            self._intake.queued = self._queue_rows  # Full for ever: rows are counted, not kept.
        self._db.close()
        return True

    def _end(self) -> None:
        complete = self._batch is None and not self._waiting()
        if not complete:
            with self._lock:
                self._drop(self._intake.queued, self.trouble)
        try:
            self._db.execute("DELETE FROM meta WHERE key = 'writer'")
            set_meta(self._db, {"closed": time.time()})
        except sqlite3.Error as error:
            self.trouble = f"{self.path.name} could not be closed in order: {error}"
        else:
            self._ended = complete
        close_writer(self._db)

    def _disarm(self) -> None:
        """For a forked child: do nothing, not even close (it would checkpoint the file)."""
        self._inert, self._ended = True, False
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))


def _event_row(step: int, event: Event) -> tuple[object, ...]:
    return (int(step), time.time(), time.monotonic_ns(), event.kind, encode(event))


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _disarm_all() -> None:
    for writer in list(_writers):
        writer._disarm()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disarm_all)
