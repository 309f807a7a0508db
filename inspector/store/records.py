"""What the reader hands out: frozen values of numpy arrays and plain types."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from inspector.events import StoredEvent
from inspector.quantities import SeriesKey
from inspector.store.layout import F32, F64, I32, I64

Status = Literal["running", "paused", "finished", "stopped", "failed", "crashed", "empty"]
"""``crashed``: the process is gone (or silent, on another host) and no final event was written.
``empty``: nothing was ever recorded and nobody is about to."""


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """One series over steps, at most ``max_points`` points.

    Attributes:
        steps: int64[n], rising; of a point that stands for several rows the last step at which
            it was measured.
        values: float32[n], in the quantity's unit: the measured number, or the mean of the
            bucket's. NaN (or the measured ±inf) where ``nonfinite`` is above 0, so that a
            single NaN in a million steps stays visible; ``low`` and ``high`` still bound the
            finite numbers of that bucket.
        low, high: float32[n], least and greatest finite number; equal to ``values`` at
            ``bucket`` 1.
        nonfinite: int32[n], how many measured numbers were NaN or infinite.
        bucket: rows per point; 1 means nothing was left out.
        finite: int32[n], how many finite numbers ``values`` is the mean of; None stands for one
            in each point that is finite.
    """

    steps: I64
    values: F32
    low: F32
    high: F32
    nonfinite: I32
    bucket: int = 1
    finite: I32 | None = None

    def __len__(self) -> int:
        return len(self.steps)


@dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """One quantity of k subjects over m buckets of steps.

    Attributes:
        subjects: k module paths or parameter names, in the order in which they were recorded.
        steps: int64[m], rising; of a bucket the last step at which the rows of these subjects
            were written, so that of one subject it may be later than its own last number.
        values: float32[k, m]. A bucket's greatest number for norms and other quantities on a
            logarithmic axis, else its mean. NaN where nothing was measured (``nonfinite`` 0) or
            where something non-finite was (``nonfinite`` above 0).
        nonfinite: int32[k, m], how many measured numbers were NaN or infinite.
        bucket: rows per column; 1 means nothing was left out.
    """

    subjects: list[str]
    steps: I64
    values: F32
    nonfinite: I32
    bucket: int = 1


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The newest sign of life.

    Attributes:
        step: the step that was running, 0-based.
        state: what the recorder said last: ``running``, ``paused``, ….
        wall: when the training thread said so (seconds since 1970).
        beat: when the writer thread was last alive (seconds since 1970).
        pid_alive: whether the process lives; None when it ran on another host.
        facts: whatever else the recorder reported.
    """

    step: int
    state: str
    total_steps: int | None
    wall: float
    beat: float
    pid_alive: bool | None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Counts of ``len(counts)`` equal bins from ``low`` to ``high`` at a step."""

    step: int
    low: float
    high: float
    counts: I64


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the stream of one rank; ``Cursor()`` is its beginning."""

    chunk: int = 0
    event: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Raw rows of one group: ``steps`` int64[n] and ``values`` float32[len(keys), n].

    ``layout.is_absent(values)`` is true where a series was not measured; ``wall`` is when the
    newest row was recorded (seconds since 1970).
    """

    keys: tuple[SeriesKey, ...]
    steps: I64
    values: F32
    wall: float = 0.0


@dataclass(frozen=True, slots=True, eq=False)
class RawRows:
    """Every row of one group over some steps, as it was recorded.

    ``steps`` int64[n], ``values`` float32[len(keys), n] (``layout.is_absent`` where a series was
    not measured), ``walls`` float64[n] in seconds since 1970: known of the first and the last row
    of each chunk, which lie at most 64 rows or one commit (50 ms) apart, and even between them.
    """

    keys: tuple[SeriesKey, ...]
    steps: I64
    walls: F64
    values: F32


@dataclass(frozen=True, slots=True, eq=False)
class Delta:
    """What came after a cursor: rows by group, and events; false when there is nothing."""

    rows: dict[str, Rows] = field(default_factory=dict)
    events: list[StoredEvent] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.rows or self.events)


@dataclass(frozen=True, slots=True)
class RunSummary:
    """One line of the list of runs.

    Attributes:
        status: a :data:`Status`, or ``unreadable`` with the ``reason`` as a sentence.
        created, wall: begin and newest sign of life, seconds since 1970.
        step: newest step with a sign of life, 0-based; None when there was none.
        script: file name of the script that was watched, else empty.
        optimizers: class (``type``) and first learning rate (``lr``) of each.
    """

    name: str
    path: str
    status: Status | Literal["unreadable"]
    kind: str = ""
    created: float = 0.0
    wall: float = 0.0
    step: int | None = None
    total_steps: int | None = None
    config: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    script: str = ""
    optimizers: tuple[dict[str, Any], ...] = ()
