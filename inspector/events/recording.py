"""What recording itself does: captures, changes of pace, what failed or was dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from inspector.events.event import Event, Level


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeFailed(Event):
    """One of our own probes raised; it was switched off, training went on."""

    kind: ClassVar[str] = "probe_failed"
    level: ClassVar[Level] = "warning"
    probe: str
    error: str
    traceback: str = ""

    @property
    def text(self) -> str:
        return f"Probe {self.probe} failed and was switched off: {self.error}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TelemetryDropped(Event):
    """The store could not keep up or could not write; ``rows`` rows of telemetry are missing."""

    kind: ClassVar[str] = "telemetry_dropped"
    level: ClassVar[Level] = "warning"
    rows: int
    reason: str

    @property
    def text(self) -> str:
        return f"{self.rows} rows of telemetry dropped: {self.reason}."


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleChanged(Event):
    """A probe now runs every ``every`` steps, to keep the cost of watching within its budget."""

    kind: ClassVar[str] = "schedule_changed"
    probe: str
    every: int
    reason: str = ""

    @property
    def text(self) -> str:
        why = f" ({self.reason})" if self.reason else ""
        steps = "at every step" if self.every == 1 else f"every {self.every:,} steps"
        return f"Measured {steps}: {self.probe}{why}."


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphCaptured(Event):
    """The autograd graph of the step's loss was stored as a document of kind ``graph``."""

    kind: ClassVar[str] = "graph_captured"
    nodes: int

    @property
    def text(self) -> str:
        return f"Autograd graph captured ({self.nodes} nodes)."


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardCaptured(Event):
    """A backward pass was stored node by node, as a document of kind ``backward``."""

    kind: ClassVar[str] = "backward_captured"
    nodes: int
    nonfinite: bool = False

    @property
    def text(self) -> str:
        found = ", with non-finite gradients" if self.nonfinite else ""
        return f"Backward pass captured ({self.nodes} nodes{found})."


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice(Event):
    """A sentence for the user that fits no other kind."""

    kind: ClassVar[str] = "notice"
    message: str

    @property
    def text(self) -> str:
        return self.message


FAMILY: tuple[type[Event], ...] = (
    ProbeFailed, TelemetryDropped, ScheduleChanged, GraphCaptured, BackwardCaptured, Notice,
)  # fmt: skip
