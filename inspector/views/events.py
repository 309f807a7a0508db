"""Events as rows of a table and as one banner, in words for people."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from inspector.events import Level, NonFinite, RunFailed, StoredEvent

TITLES = {
    "run_started": "Start",
    "run_finished": "End",
    "run_failed": "Failure",
    "command_applied": "Command",
    "command_refused": "Refused",
    "nonfinite": "Non-finite",
    "epoch_finished": "Epoch",
    "early_stopped": "Early stop",
    "checkpoint_saved": "Checkpoint",
    "checkpoint_failed": "Lost checkpoint",
    "run_continued": "Continued",
    "paused": "Pause",
    "resumed": "Resume",
    "step_skipped": "Skipped step",
    "probe_failed": "Probe",
    "telemetry_dropped": "Lost telemetry",
    "schedule_changed": "Measuring",
    "graph_captured": "Graph",
    "backward_captured": "Backward",
    "origin": "Origin",
    "rewound": "Rewind",
    "remedy_verdict": "Verdict",
    "fault_injected": "Fault",
    "fault_revealed": "Revealed",
    "fault_healed": "Healed",
    "lr_found": "Learning rate finder",
    "notice": "Notice",
    "unknown": "Unknown",
}


ROUTINE = frozenset({TITLES["schedule_changed"]})
"""Titles of what only says how the inspector works; a list shows them when asked for."""


@dataclass(frozen=True, slots=True)
class EventRow:
    """One line of the event list; ``time`` is local wall-clock time, HH:MM:SS."""

    step: int
    time: str
    level: Level
    kind: str
    text: str


def rows(events: Iterable[StoredEvent], *, kinds: Sequence[str] = ()) -> list[EventRow]:
    """Newest first; ``kinds`` keeps only events of those titles, else routine is left out."""
    wanted = set(kinds)
    made = [
        EventRow(
            step=stored.step,
            time=time.strftime("%H:%M:%S", time.localtime(stored.wall)),
            level=stored.event.level,
            kind=TITLES.get(stored.event.kind, stored.event.kind),
            text=stored.event.text,
        )
        for stored in events
    ]
    made.reverse()
    return [row for row in made if (row.kind in wanted if wanted else row.kind not in ROUTINE)]


def titles(events: Iterable[StoredEvent]) -> list[str]:
    """The titles that occur, in alphabetical order, routine last."""
    found = {TITLES.get(stored.event.kind, stored.event.kind) for stored in events}
    return sorted(found, key=lambda title: (title in ROUTINE, title))


def failure(events: Iterable[StoredEvent]) -> tuple[int, RunFailed] | None:
    """Step and event of the failure that ended the run."""
    for stored in events:
        if isinstance(stored.event, RunFailed):
            return stored.step, stored.event
    return None


def first_nonfinite(events: Iterable[StoredEvent]) -> tuple[int, NonFinite] | None:
    """Step and event at which the first non-finite value appeared."""
    for stored in events:
        if isinstance(stored.event, NonFinite):
            return stored.step, stored.event
    return None
