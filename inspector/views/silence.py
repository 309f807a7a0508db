"""What a run is at while it makes no steps, and for how long it has been."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inspector.events import Notice, RunStarted, StoredEvent
from inspector.store.records import Heartbeat

FIRST_SECONDS = 2.0
"""A first step that takes longer is explained."""

LATER_SECONDS = 5.0
"""So is a later one; the training thread gives a sign of life with every step, once a second."""

UNWRITTEN_SECONDS = 10.0
"""The writer gives a sign of life each second, whatever the training does."""


@dataclass(slots=True)
class Beginning:
    """When and at which step the training began, and whether its model is being compiled.

    Attributes:
        at: seconds since 1970; NaN before the run has started.
        step: completed steps at the start: those of the run that is gone on from.
    """

    at: float = math.nan
    step: int = 0
    uncompiled: bool = False

    def take(self, events: Iterable[StoredEvent]) -> None:
        """Takes events in, oldest first."""
        for stored in events:
            if isinstance(stored.event, RunStarted):
                self.at, self.step = stored.wall, stored.event.resumed_at or 0
            elif isinstance(stored.event, Notice):
                self.uncompiled |= "trained uncompiled" in stored.event.message


def silence(
    beginning: Beginning,
    beat: Heartbeat | None,
    *,
    kind: str,
    config: Mapping[str, Any],
    now: float,
) -> str:
    """Why no step has come for a while, as one sentence; empty while steps come.

    Args:
        kind: of the run: ``built_in``, or another one for a script of one's own.
        config: of a built-in run, else empty.
        now: seconds since 1970.
    """
    unwritten = now - beat.beat if beat is not None and beat.pid_alive else 0.0
    if unwritten >= UNWRITTEN_SECONDS:
        return (
            f"Nothing could be recorded for {unwritten:.0f} s: the run's disk is full or does not "
            "answer, or its process is suspended."
        )
    compiles = bool(config.get("compile")) and not beginning.uncompiled
    if beat is None or beat.step <= beginning.step:
        seconds = now - beginning.at
        return _first(seconds, kind, config, compiles) if seconds >= FIRST_SECONDS else ""
    seconds = now - beat.wall
    if seconds < LATER_SECONDS:
        return ""
    why = "a slow step, a validation or a checkpoint"
    if compiles:
        why = "the first validation and batches of another size are compiled anew"
    return f"No step for {seconds:.0f} s: {why}."


def _first(seconds: float, kind: str, config: Mapping[str, Any], compiles: bool) -> str:
    said = f"({seconds:.0f} s so far)"
    if compiles:
        return f"Compiling the model: the first step takes a while {said}."
    if kind != "built_in":
        return f"Waiting for the script's first step {said}."
    if config.get("workers"):
        return f"Waiting for the first step: the loading processes begin {said}."
    return f"Waiting for the first step: its batch is loaded and computed {said}."
