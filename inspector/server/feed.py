"""One reader per run, shared by every socket that shows it.

A feed owns a thread with the only read connection to its run. Up to four times a second it takes
the new rows in, grows the buffers of all viewers by them and wakes the sockets. In between it
asks nothing; when the interval is over it asks every 25 ms (a few microseconds where nothing
changed), so that a point that comes alone is on its way at once. It exists only while somebody
watches.
"""

from __future__ import annotations

import contextlib
import functools
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from inspector.errors import InspectorError
from inspector.quantities import SeriesKey
from inspector.store.layout import is_absent
from inspector.store.reader import Delta, Rows, Run
from inspector.views.live import Buffer, MatrixBuffer, MatrixKey, SeriesBuffer
from inspector.views.state import Marker, RunState, StateKeeper

INTERVAL_S = 0.25
POLL_S = 0.025
FRESH_S = 0.05  # rows no older than this are shown when the interval ends;
PATIENCE_S = 0.1  # otherwise the next rows are waited for, but no longer than this
STATE_S = 0.5  # how often a silent run is checked for having died

Key = SeriesKey | MatrixKey


class Feed:
    """The newest of one rank of a run, in buffers that several sockets look into."""

    def __init__(self, path: Path, rank: int = 0) -> None:
        self.path = path
        self.rank = rank
        self.lock = threading.Lock()
        self.state: RunState | None = None
        self._keeper = StateKeeper()
        self.newest_wall = 0.0
        self._buffers: weakref.WeakValueDictionary[tuple[Key, int], Buffer] = (
            weakref.WeakValueDictionary()
        )
        self._jobs: queue.SimpleQueue[tuple[Callable[[Run], Any], Future[Any]]] = (
            queue.SimpleQueue()
        )
        self._listeners: list[Callable[[], None]] = []
        self._closed = threading.Event()
        self._bell = threading.Event()  # there is a job, or the end
        self._opened: Future[None] = Future()
        self._thread = threading.Thread(target=self._run, name=f"feed {path.name}", daemon=True)
        self._thread.start()

    @property
    def opened(self) -> Future[None]:
        """Done when the run is open; holds the StoreError when it cannot be read."""
        return self._opened

    @property
    def markers(self) -> tuple[Marker, ...]:
        """Events to be drawn on every chart, oldest first."""
        return self._keeper.markers

    def buffer(self, key: Key, max_points: int) -> Future[Buffer]:
        """The buffer of a series, or of a matrix (quantity, by, subjects), loaded."""
        return self._submit(lambda run: self._make(run, key, max_points))

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Calls ``wake`` (from the feed's thread) when something is new; returns the way out."""
        self._listeners = [*self._listeners, wake]

        def stop() -> None:
            self._listeners = [other for other in self._listeners if other is not wake]

        return stop

    def close(self) -> None:
        """Has the thread end; returns at once."""
        self._closed.set()
        self._bell.set()

    def join(self, timeout: float) -> None:
        """Waits for the thread to end."""
        self._thread.join(timeout)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def closed(self) -> bool:
        return self._closed.is_set()

    def _submit(self, job: Callable[[Run], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._jobs.put((job, future))
        self._bell.set()
        if self.closed:
            self._refuse_jobs()
        return future

    def _run(self) -> None:
        try:
            with Run(self.path) as run:
                self._opened.set_result(None)
                self._follow(run)
        except Exception as error:
            if not self._opened.done():
                self._opened.set_exception(error)
            self._closed.set()
            self.state = RunState(status="unreadable", problem=str(error))
            self._wake()
        finally:
            self._refuse_jobs()

    def _follow(self, run: Run) -> None:
        # The place first, then the history: what lies between comes twice and is left out once.
        cursor, _ = run.tail(None, rank=self.rank)
        self._keeper.take(run.events(rank=self.rank))
        shown = taken = checked = 0.0
        pending = False
        while not self.closed:
            rest = shown + INTERVAL_S - time.monotonic()
            if self._bell.wait(max(rest, POLL_S)):
                self._bell.clear()
                self._do_jobs(run)
                continue
            now = time.monotonic()
            cursor, delta = run.tail(cursor, keys=self._wanted(), rank=self.rank)
            if delta:
                self._take(run, delta)
                taken = taken if pending else now
                pending = True
            if delta.events or now - checked > STATE_S:
                checked = now
                pending = self._take_state(run) or pending
            if pending and (self._is_fresh() or now - taken > PATIENCE_S):
                shown, pending = now, False
                self._wake()

    def _is_fresh(self) -> bool:
        """Whether the newest row is so young that waiting for a younger one gains nothing."""
        return time.time() - self.newest_wall < FRESH_S

    def _wanted(self) -> frozenset[SeriesKey] | None:
        """The series that somebody looks at; None (all) where whole matrices are looked at."""
        buffers = list(self._buffers.values())
        keys = frozenset(buffer.key for buffer in buffers if isinstance(buffer, SeriesBuffer))
        return keys if len(keys) == len(buffers) else None

    def _do_jobs(self, run: Run) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                job, future = self._jobs.get_nowait()
                if not future.set_running_or_notify_cancel():
                    continue
                try:
                    future.set_result(job(run))
                except Exception as error:
                    future.set_exception(error)

    def _refuse_jobs(self) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                _, future = self._jobs.get_nowait()
                future.set_exception(InspectorError("The run is no longer being read."))

    def _make(self, run: Run, key: Key, max_points: int) -> Buffer:
        buffer = self._buffers.get((key, max_points))
        if buffer is None:
            if isinstance(key, SeriesKey):
                buffer = SeriesBuffer(key, max_points)
            else:
                buffer = MatrixBuffer(key, max_points)
            _load(run, buffer, rank=self.rank)
            self._buffers[key, max_points] = buffer
        return buffer

    def _take(self, run: Run, delta: Delta) -> None:
        self._keeper.take(delta.events)
        with self.lock:
            buffers = list(self._buffers.values())
            stale = [buffer for buffer in buffers if not _grow(buffer, delta)]
            if delta.rows:
                self.newest_wall = max(rows.wall for rows in delta.rows.values())
        for buffer in stale:
            _load(run, buffer, self.lock, rank=self.rank)

    def _take_state(self, run: Run) -> bool:
        state = self._keeper.state(run)
        changed = state != self.state
        self.state = state
        return changed

    def _wake(self) -> None:
        for wake in self._listeners:
            wake()


def _load(run: Run, buffer: Buffer, lock: threading.Lock | None = None, *, rank: int = 0) -> None:
    """Fills a buffer from the store; the reading itself is done outside the lock."""
    guard = lock or contextlib.nullcontext()
    if isinstance(buffer, SeriesBuffer):
        key = buffer.key
        series = run.series(key.quantity, key.subject, max_points=buffer.max_points, rank=rank)
        with guard:
            buffer.load(series)
    elif isinstance(buffer, MatrixBuffer):
        table = run.matrix(
            buffer.key.quantity,
            subjects=buffer.key.subjects or None,
            by=buffer.key.by,
            max_points=buffer.max_points,
            rank=rank,
        )
        with guard:
            buffer.load(table)


def _grow(buffer: Buffer, delta: Delta) -> bool:
    """Adds the new rows; False when the buffer must be loaded again."""
    for rows in delta.rows.values():
        if isinstance(buffer, SeriesBuffer):
            _grow_series(buffer, rows)
        elif isinstance(buffer, MatrixBuffer) and not _grow_matrix(buffer, rows):
            return False
    return not buffer.full


def _grow_series(buffer: SeriesBuffer, rows: Rows) -> None:
    column = _columns(rows.keys).get(buffer.key)
    if column is None:
        return
    values = rows.values[column]
    present = ~is_absent(values)
    if present.any():
        buffer.extend(rows.steps[present], values[present])


def _grow_matrix(buffer: MatrixBuffer, rows: Rows) -> bool:
    columns = [
        (key.subject, column)
        for key, column in _columns(rows.keys).items()
        if key.quantity == buffer.key.quantity
    ]
    if not columns:
        return True
    values = rows.values[[column for _, column in columns]]
    present = ~is_absent(values)
    recorded = present.any(axis=0)
    if not recorded.any():
        return True
    return buffer.extend(
        [subject for subject, _ in columns],
        rows.steps[recorded],
        values[:, recorded],
        present[:, recorded],
    )


@functools.lru_cache(maxsize=32)
def _columns(keys: tuple[SeriesKey, ...]) -> dict[SeriesKey, int]:
    return {key: column for column, key in enumerate(keys)}


class FeedHub:
    """The feeds of this process: one per rank of a run that somebody watches."""

    def __init__(self) -> None:
        self._feeds: dict[tuple[Path, int], tuple[Feed, int]] = {}
        self._lock = threading.Lock()

    @property
    def open(self) -> list[Feed]:
        """The feeds that run now."""
        with self._lock:
            return [feed for feed, _ in self._feeds.values()]

    @contextlib.contextmanager
    def watching(self, path: Path, rank: int = 0) -> Iterator[Feed]:
        """The feed of a rank of a run, opened for its first viewer and closed after its last."""
        key = path, rank
        with self._lock:
            feed, viewers = self._feeds.get(key, (None, 0))
            if feed is None or feed.closed:
                feed, viewers = Feed(path, rank), 0
            self._feeds[key] = (feed, viewers + 1)
        try:
            yield feed
        finally:
            with self._lock:
                held, viewers = self._feeds.get(key, (feed, 1))
                if held is not feed:
                    pass
                elif viewers > 1:
                    self._feeds[key] = (feed, viewers - 1)
                else:
                    del self._feeds[key]
            if held is not feed or viewers <= 1:
                feed.close()
