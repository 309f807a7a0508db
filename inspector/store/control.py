"""The small door: commands travel from the app to the run as rows of ``control.db``."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from inspector.commands import Command
from inspector.errors import CommandError, StoreError
from inspector.store.database import connect_reader, open_shared
from inspector.store.layout import CONTROL_FILE

_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS command("
    "id INTEGER PRIMARY KEY AUTOINCREMENT, uid TEXT UNIQUE, wall REAL, json TEXT)"
)
# A file's time stamp is only this fine: a file changed more recently is read again.
_STAMP_NS = 2_000_000_000


class Sent(NamedTuple):
    """A command on its way: its id, and when it was sent, in seconds since 1970."""

    id: str
    wall: float


class ControlWriter:
    """Sends commands to a run; safe to share between threads, and between processes."""

    def __init__(self, run_dir: str | Path) -> None:
        self._path = Path(run_dir) / CONTROL_FILE
        self._lock = threading.Lock()
        self._db: sqlite3.Connection | None = None

    def send(self, command: Command) -> str:
        """Stores the command durably and returns its id; sending one twice does nothing.

        Raises:
            StoreError: the run directory cannot be written.
        """
        with self._lock:
            try:
                db = self._open()
                db.execute(
                    "INSERT OR IGNORE INTO command(uid, wall, json) VALUES (?,?,?)",
                    (command.id, time.time(), command.to_json()),
                )
            except sqlite3.Error as error:
                raise StoreError(
                    f"Expected to leave a command in {self._path}, but got: {error}; "
                    "check that the run directory exists and can be written."
                ) from error
        return command.id

    def newest(self, like: Command) -> Sent | None:
        """The last command that asks for the same; None where there is none, or none readable."""
        wanted = like.to_json()
        with self._lock, contextlib.suppress(sqlite3.Error):
            rows = self._open().execute("SELECT uid, wall, json FROM command ORDER BY id DESC")
            for uid, wall, text in rows:
                with contextlib.suppress(CommandError):
                    if replace(Command.from_json(text), id=like.id).to_json() == wanted:
                        return Sent(uid, wall)
        return None

    def _open(self) -> sqlite3.Connection:
        if self._db is None or not self._path.exists():
            self._close()
            self._db = open_shared(self._path, _SCHEMA)
        return self._db

    def _close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None

    def close(self) -> None:
        with self._lock:
            self._close()


class Refused(NamedTuple):
    """A row of the control file that is no command; ``reason`` is a sentence."""

    id: str
    reason: str


class ControlReader:
    """Takes new commands, each once; cheap enough to ask at every step.

    ``refused`` collects rows that hold something no command can be; the caller empties it.
    """

    def __init__(self, run_dir: str | Path, *, seen: Collection[str] = ()) -> None:
        """``seen``: ids that were applied before, when a run is taken up again."""
        self.refused: list[Refused] = []
        self._path = Path(run_dir) / CONTROL_FILE
        self._seen = set(seen)
        self._last = 0
        self._stamp = (-1, -1)
        self._db: sqlite3.Connection | None = None

    def poll(self) -> list[Command]:
        """New commands in the order they were sent; empty when there is no file yet."""
        try:
            status = self._path.stat()
        except OSError:
            return []
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp == self._stamp and abs(time.time_ns() - status.st_mtime_ns) > _STAMP_NS:
            return []
        try:
            rows = self._rows(replaced=stamp[1] != self._stamp[1])
        except sqlite3.Error:
            return []  # Being created or written at this moment: the next poll sees it.
        self._stamp = stamp
        return [command for row in rows if (command := self._command(*row)) is not None]

    def _rows(self, replaced: bool) -> list[tuple[int, str, str]]:
        if replaced or self._db is None:
            self.close()
            # The training thread asks: better an empty answer now than a wait for a lock.
            self._db = connect_reader(self._path, timeout=0.01)
        query = "SELECT id, uid, json FROM command WHERE id > ? ORDER BY id"
        return self._db.execute(query, (self._last,)).fetchall()

    def _command(self, row: int, uid: str, text: str) -> Command | None:
        self._last = row
        if uid in self._seen:
            return None
        self._seen.add(uid)
        try:
            return Command.from_json(text)
        except (ValueError, TypeError, ArithmeticError, RecursionError) as error:
            self.refused.append(Refused(str(uid), str(error)))
            return None

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
