"""Reading a run, live or finished, from its directory; without torch, without its process."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np

from inspector.errors import RunNotFound, StoreError
from inspector.events import StoredEvent
from inspector.quantities import SeriesKey, described
from inspector.store.gaps import measured
from inspector.store.layout import F32, F64, I64, is_absent, is_run, rank_files, read_run_file
from inspector.store.modules import by_module
from inspector.store.query import bucket_size, buckets, raw, row_range
from inspector.store.rank import RankFile
from inspector.store.records import (
    Cursor,
    Delta,
    Heartbeat,
    Histogram,
    Matrix,
    RawRows,
    Rows,
    RunSummary,
    Series,
    Status,
)
from inspector.store.summary import list_runs

if TYPE_CHECKING:
    from inspector.diagnosis import Finding

__all__ = [
    "Cursor", "Delta", "Heartbeat", "Histogram", "Matrix", "RawRows", "Rows", "Run", "RunSummary",
    "Series", "Status", "list_runs", "open_run",
]  # fmt: skip


def open_run(path_or_name: str | Path, runs_dir: str | Path = "runs") -> Run:
    """Opens a run by the path of its directory, or by its name in ``runs_dir``.

    Raises:
        RunNotFound: there is none.
        StoreError: it cannot be read, or a newer version wrote it.
    """
    for path in (Path(path_or_name), Path(runs_dir) / path_or_name):
        if is_run(path):
            return Run(path)
        if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
            raise StoreError(f"Expected a run that can be read, but {path} is closed to this user.")
    raise RunNotFound(
        f"Expected the directory or the name of a run in {runs_dir}, but got {path_or_name!s:.200}."
    )


class Run:
    """A run as it is on disk at the moment of each call; read-only, safe to share between threads.

    Attributes:
        name: the directory's name.
        path: the directory.
        config: the configuration of a built-in run (see ``RunConfig``), else empty.
        meta: the rest of ``run.json``: ``kind``, ``created``, ``script``.
        problems: sentences about what could not be read so far, such as damaged chunks.
    """

    def __init__(self, path: str | Path) -> None:
        """Raises RunNotFound or StoreError, as :func:`open_run`."""
        self.path = Path(path)
        self.name = self.path.resolve().name
        if not self.path.is_dir():
            raise RunNotFound(f"Expected the directory of a run, but got {self.path}.")
        content = read_run_file(self.path)
        self.config: dict[str, Any] = content.pop("config", None) or {}
        self.meta = content
        self.problems: list[str] = []
        self._lock = threading.Lock()
        self._files: dict[int, RankFile] = {}
        self._closed = False
        self._ranks()

    @property
    def ranks(self) -> list[int]:
        """The ranks that have recorded so far."""
        return list(self._ranks())

    @property
    def status(self) -> Status:
        """The state of rank 0; see :meth:`rank_status` for the others."""
        return self.rank_status(0)

    def rank_status(self, rank: int) -> Status:
        file = self._ranks().get(rank)
        return file.status() if file else "empty"

    @property
    def heartbeat(self) -> Heartbeat | None:
        """Rank 0's newest sign of life."""
        file = self._ranks().get(0)
        return file.heartbeat() if file else None

    def keys(self, *, rank: int = 0) -> list[SeriesKey]:
        """Every series recorded so far, in the order of recording."""
        file = self._ranks().get(rank)
        return [key for keys in file.groups().values() for key in keys] if file else []

    def series(
        self,
        quantity: str,
        subject: str = "",
        *,
        max_points: int = 2000,
        first: int | None = None,
        last: int | None = None,
        rank: int = 0,
    ) -> Series:
        """One series over the steps ``first`` to ``last``, both included; empty if not recorded.

        More rows than ``max_points`` are put into buckets that keep minimum, maximum and the
        count of non-finite numbers. Steps at which it was not measured are left out.
        """
        file = self._ranks().get(rank)
        if file is None:
            return _no_series()
        with file.lock:
            group, columns, _ = file.find(quantity, (subject,))
            if not group:
                return _no_series()
            lo, hi = row_range(file.source, group, first, last)
            if bucket_size(lo, hi, max_points) == 1:
                _, steps, numbers = raw(file.source, group, columns[:1], lo, hi)
                return _raw_series(steps, numbers[0])
            size, found = measured(file.source, group, int(columns[0]), lo, hi, max_points)
        values = np.where(found.nonfinite > 0, np.float32(np.nan), found.mean)
        return Series(
            found.last, values, found.low, found.high, found.nonfinite, size, found.finite
        )

    def raw(self, *, rank: int = 0, rows: int = 16384) -> Iterator[list[RawRows]]:
        """Everything that was measured, window by window of rising steps, one entry a group.

        ``rows`` is about how many rows of all groups together one window holds in memory.
        """
        file = self._ranks().get(rank)
        if file is not None:
            for first, last in file.windows(rows):
                yield file.raw_rows(first, last)

    def matrix(
        self,
        quantity: str,
        *,
        subjects: Collection[str] | None = None,
        by: Literal["subject", "module"] = "subject",
        max_points: int = 300,
        first: int | None = None,
        last: int | None = None,
        rank: int = 0,
    ) -> Matrix:
        """One quantity of all (or the given) subjects, in at most ``max_points`` buckets of steps.

        ``by="module"`` combines the parameters of each module: L2 norms as the root of the sum of
        their squares (of the parameters' greatest ones, where a column stands for several rows),
        counts as their sum, everything else as the greatest.
        """
        file = self._ranks().get(rank)
        if file is None:
            return _no_matrix()
        with file.lock:
            group, columns, names = file.find(quantity, subjects)
            if not group:
                return _no_matrix()
            lo, hi = row_range(file.source, group, first, last)
            size, found = buckets(file.source, group, columns, lo, hi, max_points)
        known = described(quantity)
        values = found.high if known.peaks else found.mean
        nonfinite = found.nonfinite
        if by == "module" and known.scope == "parameter":
            names, values, nonfinite = by_module(names, values, nonfinite, known.unit)
        values = np.where(nonfinite > 0, np.float32(np.nan), values)
        return Matrix(names, found.last, values, nonfinite, size)

    def clock(self, *, rank: int = 0) -> tuple[I64, F64]:
        """When steps were recorded: int64[n] rising steps and float64[n] seconds since 1970.

        Known at the ends of each chunk, so at least every 64 steps; interpolate in between.
        """
        file = self._ranks().get(rank)
        return file.clock() if file else (np.empty(0, np.int64), np.empty(0, np.float64))

    def events(self, after: int = 0, *, rank: int | None = None) -> list[StoredEvent]:
        """Events with ``seq`` above ``after``, of one rank or of all (then by time)."""
        files = self._ranks()
        found = [
            event
            for number, file in files.items()
            if rank is None or number == rank
            for event in file.events(after)
        ]
        return sorted(found, key=lambda event: event.wall) if len(files) > 1 else found

    def document(
        self, kind: str, step: int | None = None, *, rank: int = 0
    ) -> dict[str, Any] | None:
        """The newest document of a kind, or the newest at or before a step."""
        file = self._ranks().get(rank)
        return file.document(kind, step) if file else None

    def documents(self, kind: str, *, rank: int = 0) -> list[tuple[int, float]]:
        """Step and time (seconds since 1970) of every document of a kind."""
        file = self._ranks().get(rank)
        return file.documents(kind) if file else []

    def histograms(self, kind: str, subject: str, *, rank: int = 0) -> list[Histogram]:
        """Histograms of a ``weight``, ``gradient`` or ``activation``, by rising step."""
        file = self._ranks().get(rank)
        return file.histograms(kind, subject) if file else []

    def findings(self, *, thresholds: Mapping[str, float] | None = None) -> list[Finding]:
        """What the diagnosis finds in the run: causes before symptoms, most certain first.

        Raises ConfigError when ``thresholds`` names a limit that no rule has.
        """
        from inspector.diagnosis import diagnose  # it reads runs itself: imported when asked for

        return diagnose(self, thresholds=thresholds)

    def tail(
        self,
        cursor: Cursor | None,
        *,
        keys: Collection[SeriesKey] | None = None,
        rank: int = 0,
    ) -> tuple[Cursor, Delta]:
        """Raw rows and events that came after the cursor, and the cursor for the next call.

        ``None`` returns the present end and nothing; ``Cursor()`` everything from the beginning.
        For history and live rows without a gap: take the cursor first, then read the history, and
        skip rows whose step the history already has. ``keys`` limits the series that are read.
        """
        file = self._ranks().get(rank)
        return file.tail(cursor, keys) if file else (cursor or Cursor(), Delta())

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        with self._lock:
            self._closed = True
            while self._files:
                self._files.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Run {self.name!r} at {self.path}>"

    def _ranks(self) -> dict[int, RankFile]:
        """The open rank files; those that have appeared since the last call are opened."""
        with self._lock:
            if self._closed:
                raise StoreError(f"Run {self.name} is closed; open it again to read it.")
            for rank, path in rank_files(self.path).items():
                if rank not in self._files and path.stat().st_size:
                    file = RankFile(path, rank, self._report)
                    if file.ready():
                        self._files[rank] = file
                    else:
                        file.close()
            return dict(sorted(self._files.items()))

    def _report(self, sentence: str) -> None:
        if sentence not in self.problems:
            self.problems.append(sentence)


def _raw_series(steps: I64, values: F32) -> Series:
    kept = ~is_absent(values)
    steps, values = steps[kept], values[kept]
    return Series(steps, values, values, values, (~np.isfinite(values)).astype(np.int32))


def _no_series() -> Series:
    return _raw_series(np.empty(0, np.int64), np.empty(0, np.float32))


def _no_matrix() -> Matrix:
    return Matrix(
        [],
        np.empty(0, np.int64),
        np.empty((0, 0), np.float32),
        np.empty((0, 0), np.int32),
    )
