"""How a run is doing, in one small value for the status strip, and its events as markers."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from inspector.commands import OF_OPTIMIZERS, Controls
from inspector.events import (
    CommandApplied,
    Level,
    NonFinite,
    Resumed,
    RunFailed,
    StepSkipped,
    StoredEvent,
)
from inspector.numerals import short
from inspector.store.layout import cut_off, rank_files
from inspector.store.reader import Run
from inspector.views.controls import in_force, in_parts
from inspector.views.cost import capture_every, changes, spacing_after
from inspector.views.events import TITLES
from inspector.views.pace import pace
from inspector.views.silence import Beginning, silence

MARKED = frozenset(
    {
        "command_applied", "nonfinite", "run_failed", "checkpoint_saved", "probe_failed",
        "step_skipped", "telemetry_dropped", "rewound", "remedy_verdict", "fault_injected",
        "fault_revealed", "fault_healed", "early_stopped",
    }
)  # fmt: skip
MOST_MARKERS = 500
_SHORT = {"weight_decay": "weight decay"}
SKIPPED = 10
"""Steps skipped one after the other before it is said: a GradScaler begins with some."""


@dataclass(frozen=True, slots=True)
class Marker:
    """An event as a vertical line on every chart."""

    seq: int
    step: int
    kind: str
    level: Level
    text: str


@dataclass(frozen=True, slots=True)
class RunState:
    """What the status strip shows.

    Attributes:
        status: the reader's status, or ``unreadable``.
        step: last completed step, or -1.
        controls: label and value of every control that differs from its default.
        nonfinite: step and sentence of the first non-finite value, or None.
        problem: why the run failed, ended without a word or cannot be read, else empty.
        waiting: why no step has come for a while, with the seconds; else empty.
        measured: modules and parameters are measured every so many steps.
        pace: seconds a step before the pause or the end, by the clock; None while the run goes on
            or where it was too short.
    """

    status: str
    step: int = -1
    total_steps: int | None = None
    controls: tuple[tuple[str, str], ...] = ()
    nonfinite: tuple[int, str] | None = None
    problem: str = ""
    waiting: str = ""
    measured: int = 1
    pace: float | None = None


class StateKeeper:
    """Keeps markers and state up to date from the events as they come."""

    def __init__(self) -> None:
        self.markers: tuple[Marker, ...] = ()
        self._commands: list[StoredEvent] = []
        self._spacing = 1
        self._skipped = ""  # why
        self._nonfinite: tuple[int, str] | None = None
        self._problem = ""
        self._beginning = Beginning()
        self._seq = 0
        self._resumed = 0.0  # when the last pause ended
        self._paced: tuple[Any, float | None] = (None, None)

    def take(self, events: Iterable[StoredEvent]) -> None:
        """Takes events in; those it already has are left out."""
        new = []
        for stored in events:
            if stored.seq <= self._seq:
                continue
            self._seq = stored.seq
            event = stored.event
            self._beginning.take([stored])
            if made := changes([stored]):
                self._spacing = spacing_after(made)
            if event.kind == "command_applied":
                self._commands.append(stored)
            elif isinstance(event, NonFinite) and self._nonfinite is None:
                self._nonfinite = (stored.step, event.text)
            elif isinstance(event, RunFailed):
                self._problem = event.text
            elif isinstance(event, StepSkipped):
                self._skipped = event.reason
            elif isinstance(event, Resumed):
                self._resumed = stored.wall
            if event.kind in MARKED:
                title = TITLES.get(event.kind, event.kind)
                text = f"{title} at step {stored.step}: {event.text}"
                new.append(Marker(stored.seq, stored.step, event.kind, event.level, text))
        if new:
            self.markers = (*self.markers, *new)[-MOST_MARKERS:]

    def state(self, run: Run) -> RunState:
        """The state now; cheap enough for four times a second."""
        beat, status = run.heartbeat, run.status
        waiting = (
            silence(
                self._beginning,
                beat,
                kind=str(run.meta.get("kind")),
                config=run.config,
                now=time.time(),
            )
            if status == "running"
            else ""
        )
        if status == "running" and beat is not None:
            waiting = self._held_up(beat.facts) or waiting
        return RunState(
            status=status,
            step=beat.step - 1 if beat else -1,
            total_steps=beat.total_steps if beat else None,
            controls=(
                *_stopping(run),
                *_differences(in_force(run.config, self._commands)),
                *_in_parts(in_parts(self._commands)),
            ),
            nonfinite=self._nonfinite,
            problem=self._problem or (lost(run) if status == "crashed" else ""),
            waiting=waiting,
            measured=capture_every(run) or self._spacing,
            pace=None if status == "running" else self._pace(run, status),
        )

    def _pace(self, run: Run, status: str) -> float | None:
        """Read once for each rest: nothing is recorded meanwhile."""
        beat = run.heartbeat
        rest = status, self._resumed, beat.step if beat else -1
        if self._paced[0] != rest:
            self._paced = rest, pace(run, self._resumed)
        return self._paced[1]

    def _held_up(self, facts: dict[str, Any]) -> str:
        """Why step after step is begun and none is made; empty while steps are made."""
        count, loss = int(facts.get("skipped") or 0), facts.get("loss")
        loss = f"; the loss is {loss}" if loss else ""
        return f"No step in {count:,} tries: {self._skipped}{loss}." * (count >= SKIPPED)


def _stopping(run: Run) -> tuple[tuple[str, str], ...]:
    """That a script has yet to take the stop it was asked for."""
    beat = run.heartbeat
    waits = beat is not None and beat.facts.get("stopping") and run.meta.get("kind") != "built_in"
    return (("stop", "waits for watch.should_stop"),) if waits and run.status == "running" else ()


def lost(run: Run) -> str:
    """What is known of a run that was not ended in order: its process is gone, or its disk full."""
    if any(cut_off(path).exists() for path in rank_files(run.path).values()):
        return (
            "The run's disk refused what was recorded last: it was full, or could not be written. "
            "What was recorded until then is here."
        )
    whose = "The training process" if run.meta.get("kind") == "built_in" else "The script"
    return (
        f"{whose} is gone without having ended the run: it was killed, ran out of memory, or the "
        "machine went down. What was recorded until then is here."
    )


def _differences(controls: Controls) -> tuple[tuple[str, str], ...]:
    """Controls that differ from their defaults, in words."""
    scheduled = (controls.schedule or {}).get("name", "constant") != "constant"
    shown: list[tuple[str, str]] = []
    for name in OF_OPTIMIZERS:
        label = _SHORT.get(name, name)
        value = getattr(controls, name)
        if scheduled and name == "lr":
            continue  # only where the schedule began; the rate itself has a chart
        if value is not None and (value or name == "lr"):
            shown.append((label, short(value)))
    if not controls.zero_grad:
        shown.append(("zero_grad", "off"))
    if controls.clip != "off":
        shown.append(("clip", f"{controls.clip} {short(controls.clip_threshold)}"))
    if controls.detect_anomaly:
        shown.append(("detect_anomaly", "on"))
    if scheduled:
        shown.append(("schedule", str((controls.schedule or {})["name"]).replace("_", " ")))
    if controls.accumulate > 1:
        shown.append(("accumulate", f"{controls.accumulate} passes"))
    for name, label in (("frozen", "frozen"), ("eval_modules", "eval mode")):
        modules = getattr(controls, name)
        if modules:
            shown.append((label, ", ".join(modules[:2]) + ", …" * (len(modules) > 2)))
    if controls.max_steps_per_s is not None:
        shown.append(("slow motion", f"{short(controls.max_steps_per_s)} steps/s"))
    return tuple(shown)


def _in_parts(applied: Iterable[CommandApplied]) -> tuple[tuple[str, str], ...]:
    """What was set in one optimizer or parameter group: its name, and the setting."""
    return tuple(
        (event.where or event.target, f"{_SHORT.get(event.name, event.name)} {short(value)}")
        for event in applied
        if isinstance(value := event.effective, float)
    )


def to_dict(state: RunState) -> dict[str, Any]:
    """JSON-able fields for the browser."""
    return dataclasses.asdict(state)
