"""The writer thread: takes blocks, encodes them, commits; keeps what the disk refuses."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from inspector.events import Event, TelemetryDropped, encode
from inspector.store.chunks import Statement
from inspector.store.database import close_writer
from inspector.store.encoder import Encoder, Group
from inspector.store.intake import Intake
from inspector.store.layout import cut_off
from inspector.store.resume import set_meta

COMMIT_SECONDS = 0.1
"""A row waits at most this long; a queue that fills up does not wait."""
BEAT_SECONDS = 1.0
RETRY_SECONDS = 0.25
GIVE_UP_SECONDS = 2.0

_LOG = logging.getLogger(__name__)
_TROUBLE = (
    "torch-inspector cannot write %s (%s). Training goes on; what is measured waits in memory, and "
    "is dropped once too much waits."
)
_EVENT = "INSERT INTO event(step, wall, mono_ns, kind, json) VALUES (?,?,?,?,?)"
_HEARTBEAT = (
    "INSERT OR REPLACE INTO heartbeat(id, step, state, total_steps, wall, beat, facts) "
    "VALUES (1,?,?,?,?,?,?)"
)


@dataclass(frozen=True, slots=True)
class Beat:
    """What the training thread last said about itself."""

    step: int
    state: str
    total_steps: int | None
    wall: float
    facts: Mapping[str, Any]


@dataclass(slots=True)
class _Batch:
    """What one transaction writes; kept and tried again when the disk refuses it."""

    statements: list[Statement]
    rows: int
    marks: list[threading.Event]


class Drain:
    """Empties the intake into the database until told to end, then closes it.

    Attributes:
        beat: the newest sign of life; stored with the next commit, and once a second.
        ending: write what is left, close, return.
        complete: after the end: whether everything that was taken in is stored.
    """

    def __init__(
        self, db: sqlite3.Connection, path: Path, intake: Intake, groups: dict[str, Group]
    ) -> None:
        self.db = db
        self.beat: Beat | None = None
        self.ending = False
        self.complete = False
        self._path = path
        self._inode = path.stat().st_ino
        self._intake = intake
        self._encoder = Encoder(groups)
        self._batch: _Batch | None = None
        self._stored_state = ""
        self._due = 0.0
        self._last_beat = 0.0
        self._last_report = 0.0

    def run(self) -> None:
        """The body of the thread."""
        try:
            give_up = float("inf")
            while True:
                self._wait()
                now = time.monotonic()
                ending = self.ending
                if ending:
                    give_up = min(give_up, now + GIVE_UP_SECONDS)
                beating = now - self._last_beat >= BEAT_SECONDS
                if beating:
                    self._last_beat = now
                    if self._deleted():
                        return
                if self._batch is None:
                    self._batch = self._take(now, ending)
                self._write(beating)
                left = self._batch is not None or self._intake.waiting()
                if ending and (not left or now > give_up):
                    self._end(complete=not left)
                    return
        except Exception as error:  # Recording ends, training does not.
            self._intake.lose_all(f"recording has ended ({type(error).__name__}: {error})")

    def _wait(self) -> None:
        if self._batch is not None:
            # Not on `wake`: new rows do not make a full disk any emptier.
            time.sleep(RETRY_SECONDS / 5 if self.ending else RETRY_SECONDS)
        elif not self.ending:
            queued = self._intake.queued
            wait = self._due - time.monotonic() if queued else BEAT_SECONDS
            self._intake.wake.wait(max(0.0, wait))
        self._intake.wake.clear()

    def _take(self, now: float, ending: bool) -> _Batch | None:
        everything = ending or self._intake.hurry or now >= self._due
        if everything:
            self._due = now + COMMIT_SECONDS
        blocks, statements, marks = self._intake.take(everything)
        if ending or now - self._last_report >= BEAT_SECONDS:
            self._last_report = now
            dropped = self._intake.report()
            if dropped is not None:
                step, rows, reason = dropped
                statements.append(event_statement(step, TelemetryDropped(rows=rows, reason=reason)))
        rows = sum(block.count for block in blocks)
        try:
            statements = self._encoder.encode(blocks) + statements
        except Exception as error:  # A fault of ours must not end the recording.
            self._intake.lose(rows, f"{type(error).__name__}: {error}")
            rows = 0
        return _Batch(statements, rows, marks) if statements or marks else None

    def _write(self, beating: bool) -> None:
        """One transaction; a batch that the disk refuses is kept."""
        batch, beat = self._batch, self.beat
        state = beat.state if beat is not None else ""
        if batch is None and not beating and state == self._stored_state:
            return
        try:
            self._transact(batch.statements if batch else [], beat)
        except sqlite3.OperationalError as error:
            if not self._intake.trouble:
                _LOG.warning(_TROUBLE, self._path, error)
            self._intake.trouble = f"{self._path.name} cannot be written: {error}"
            return
        except Exception as error:  # Trying again would fail again, for ever.
            self._intake.lose(batch.rows if batch else 0, f"{type(error).__name__}: {error}")
            self._batch = None
            return
        self._intake.trouble = ""
        self._stored_state = state
        self._batch = None
        if batch is not None:
            self._intake.committed(batch.rows)
            for mark in batch.marks:
                mark.set()

    def _transact(self, statements: list[Statement], beat: Beat | None) -> None:
        db = self.db
        try:
            db.execute("BEGIN IMMEDIATE")
            for sql, parameters in statements:
                db.execute(sql, parameters)
            now = time.time()
            if beat is None:
                db.execute("UPDATE heartbeat SET beat = ?", (now,))
            else:
                facts = json.dumps(dict(beat.facts), default=str)
                stamps = (beat.step, beat.state, beat.total_steps, beat.wall, now, facts)
                db.execute(_HEARTBEAT, stamps)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def _deleted(self) -> bool:
        """Whether the file is gone: commits into a deleted file succeed, and are lost."""
        try:
            if self._path.stat().st_ino == self._inode:
                return False
        except FileNotFoundError:
            pass
        except OSError:
            return False
        self._intake.lose_all(f"{self._path} was deleted while it was written")
        self.db.close()
        return True

    def _end(self, complete: bool) -> None:
        if not complete:
            self._intake.lose_all(self._intake.trouble)
        try:
            self.db.execute("DELETE FROM meta WHERE key = 'writer'")
            set_meta(self.db, {"closed": time.time()})
        except sqlite3.Error as error:
            self._intake.trouble = f"{self._path.name} could not be closed in order: {error}"
        else:
            self.complete = complete
        if not self.complete:
            with contextlib.suppress(OSError):
                cut_off(self._path).touch()
        close_writer(self.db)


def event_statement(step: int, event: Event) -> Statement:
    stamps = (int(step), time.time(), time.monotonic_ns())
    return _EVENT, (*stamps, event.kind, encode(event))
