"""Everything that can happen to a run besides numbers: one frozen dataclass per kind of event.

An event is stored with the rank, the step at which it happened, the wall-clock time and a
monotonic time; its own fields are JSON. Readers meet events of newer versions: an unknown kind
becomes :class:`Unknown`, unknown fields are ignored.
"""

from __future__ import annotations

from inspector.events.answers import (
    CommandApplied,
    CommandRefused,
    FaultHealed,
    FaultInjected,
    FaultRevealed,
    LrFound,
    RemedyVerdict,
)
from inspector.events.event import Event, Level
from inspector.events.life import (
    CheckpointFailed,
    CheckpointSaved,
    EarlyStopped,
    EpochFinished,
    Frame,
    Paused,
    Resumed,
    RunContinued,
    RunFailed,
    RunFinished,
    RunStarted,
)
from inspector.events.recording import (
    BackwardCaptured,
    GraphCaptured,
    Notice,
    ProbeFailed,
    ScheduleChanged,
    TelemetryDropped,
)
from inspector.events.stored import KINDS, StoredEvent, Unknown, decode, encode
from inspector.events.trouble import NonFinite, Origin, Rewound, StepSkipped

__all__ = [
    "KINDS", "BackwardCaptured", "CheckpointFailed", "CheckpointSaved", "CommandApplied",
    "CommandRefused", "EarlyStopped", "EpochFinished", "Event", "FaultHealed", "FaultInjected",
    "FaultRevealed", "Frame", "GraphCaptured", "Level", "LrFound", "NonFinite", "Notice",
    "Origin", "Paused", "ProbeFailed", "RemedyVerdict", "Resumed", "Rewound", "RunContinued",
    "RunFailed", "RunFinished", "RunStarted", "ScheduleChanged", "StepSkipped", "StoredEvent",
    "TelemetryDropped", "Unknown", "decode", "encode",
]  # fmt: skip
