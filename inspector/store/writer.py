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
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from inspector.errors import StoreError
from inspector.events import Event
from inspector.quantities import SeriesKey
from inspector.store.database import open_writer
from inspector.store.drain import Beat, Drain, event_statement
from inspector.store.intake import Intake
from inspector.store.layout import rank_file
from inspector.store.resume import claim, load_groups

_DOCUMENT = "INSERT INTO document(kind, step, wall, json) VALUES (?,?,?,?)"
_HISTOGRAM = "INSERT INTO histogram(kind, subject, step, low, high, counts) VALUES (?,?,?,?,?,?)"
_CLOSE_SECONDS = 60


class Writer:
    """Writes one rank of a run; its methods may be called from any thread.

    After a kill of the process, what a successful :meth:`flush` covered is there, and of the rest
    at most the last COMMIT_SECONDS are missing. A forked child inherits a writer that does nothing.
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
        self.path = rank_file(Path(run_dir), rank)
        db = _open(self.path)
        try:
            claim(db, self.path, rank, meta)
            groups = load_groups(db, self.path)
            self._intake = Intake({name: g.last for name, g in groups.items()}, queue_rows)
            self._drain = Drain(db, self.path, self._intake, groups)
        except (OSError, ValueError, sqlite3.Error) as error:
            db.close()
            raise StoreError(
                f"Expected a rank file at {self.path}, but got: {error}; move it away."
            ) from error
        except StoreError:
            db.close()
            raise
        self._inert = False
        self._thread = threading.Thread(
            target=self._drain.run, name=f"inspector-writer-{rank}", daemon=True
        )
        _writers.add(self)
        atexit.register(self.close)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Rows thrown away so far: queue full, disk trouble, or steps that did not rise."""
        return self._intake.dropped

    @property
    def trouble(self) -> str:
        """A sentence about what is wrong with the disk at the moment; empty when all is well."""
        return self._intake.trouble

    def append(
        self,
        group: str,
        step: int,
        keys: Sequence[SeriesKey],
        values: npt.NDArray[np.float32] | Sequence[float],
    ) -> None:
        """Adds one row to a group; ``values[i]`` belongs to ``keys[i]``. Costs microseconds.

        Pass the same tuple object as ``keys`` at every step: then only its identity is looked at.
        A key that is new adds a column; a column that is missing is ABSENT in this row. Never
        blocks: rows that cannot be taken are counted in ``dropped``, and a ``telemetry_dropped``
        event is stored when writing works again.

        Raises:
            ValueError: there are not as many values as keys.
        """
        if not self._inert:
            self._intake.append(group, step, keys, values)

    def extend(
        self,
        group: str,
        first: int,
        keys: Sequence[SeriesKey],
        values: npt.NDArray[np.float32],
    ) -> None:
        """Rows of consecutive steps, ``values[n, i]`` for ``keys[i]``; otherwise as ``append``."""
        if not self._inert:
            self._intake.extend(group, first, keys, values)

    def event(self, step: int, event: Event) -> None:
        """Stores an event; a full queue does not drop it."""
        if not self._inert:
            self._intake.add(event_statement(step, event))

    def document(self, kind: str, step: int, content: dict[str, Any]) -> None:
        """Stores a JSON document, such as the module table or an autograd graph."""
        if not self._inert:
            text = json.dumps(content, default=str)
            self._intake.add((_DOCUMENT, (kind, int(step), time.time(), text)))

    def histogram(
        self, step: int, kind: str, subject: str, low: float, high: float, counts: Sequence[int]
    ) -> None:
        """Stores counts of equal bins from ``low`` to ``high``.

        ``kind`` is ``weight``, ``gradient`` (of the parameter ``subject``) or ``activation`` (of
        the module ``subject``). While the disk refuses to take thousands of them, the rest drops.
        """
        if not self._inert:
            packed = np.asarray(counts, "<i8").tobytes()
            row = (kind, subject, int(step), float(low), float(high), packed)
            self._intake.add((_HISTOGRAM, row), droppable=True)

    def heartbeat(
        self, step: int, state: str, *, total_steps: int | None = None, **facts: Any
    ) -> None:
        """Says that training lives; cheap: the newest one is stored with the next commit."""
        before = self._drain.beat
        self._drain.beat = Beat(int(step), state, total_steps, time.time(), facts)
        if (before is None or before.state != state) and not self._inert:
            self._intake.wake.set()

    def flush(self, timeout: float = 5.0) -> bool:
        """Waits until everything so far is committed; False when the disk did not allow it."""
        if self._inert or not self._thread.is_alive():
            return self._drain.complete
        return self._intake.mark().wait(timeout)

    def close(self) -> None:
        """Writes what is left and closes the file; a second call does nothing."""
        if self._inert:
            return
        self._drain.ending = True
        self._intake.wake.set()
        self._thread.join(_CLOSE_SECONDS)
        self._inert = True
        atexit.unregister(self.close)
        _writers.discard(self)

    def _disarm(self) -> None:
        """For a forked child: do nothing, not even close (it would checkpoint the file)."""
        self._inert = True
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._drain.db))


def _open(path: Path) -> sqlite3.Connection:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return open_writer(path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(
            f"Expected to write {path}, but got: {error}; choose another run directory."
        ) from error


_writers: weakref.WeakSet[Writer] = weakref.WeakSet()


def _disarm_all() -> None:
    for writer in list(_writers):
        writer._disarm()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_disarm_all)
