"""What was done by hand during a run, as its events tell."""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass
from typing import Any

from inspector.commands import Controls
from inspector.events import (
    CommandApplied,
    FaultInjected,
    Rewound,
    RunFailed,
    RunFinished,
    StepSkipped,
)
from inspector.store.reader import Run

_CONTROLS = {item.name for item in dataclasses.fields(Controls)}
_WITHOUT_EFFECT = frozenset((
    "detect_anomaly", "max_steps_per_s", "on_nonfinite", "capture_every", "graph_every",
))  # fmt: skip
"""Controls that change neither weights nor random numbers."""

ACTS = ("reinitialize", "unfreeze")
"""Remedies that do more than to set a control."""


@dataclass(frozen=True, slots=True)
class InGroup:
    """A value for one optimizer or parameter group only; ``target`` as of a ``Command``."""

    target: str
    value: Any

    @property
    def group(self) -> int:
        """Position of the parameter group, of one of the first optimizer's."""
        return int(self.target.partition("/")[2] or 0)


@dataclass(frozen=True, slots=True)
class ByHand:
    """The intervention log of a run.

    Attributes:
        changes: (completed steps, control, value) in the order in which they were applied; a value
            of None goes back to what the run began with, an :class:`InGroup` was for a part of
            the parameters. What is no control is one of ``ACTS``,
            with a dict of ``module`` and, of new weights, ``method`` and ``seed``.
        last: completed steps after which the run was stopped by hand or failed; else None.
        missing: sentences about what cannot be repeated.
    """

    changes: tuple[tuple[int, str, Any], ...]
    last: int | None
    missing: tuple[str, ...]


def by_hand(run: Run) -> ByHand:
    """Reads it from the events of a run."""
    changes: list[tuple[int, str, Any]] = []
    missing: dict[str, None] = {}
    last = None
    for stored in run.events():
        event, step = stored.event, stored.step
        if isinstance(event, CommandApplied):
            if event.name in _CONTROLS - _WITHOUT_EFFECT:
                asked_for_first = event.requested is None and event.name != "schedule"
                value = None if asked_for_first else event.effective
                if event.target not in ("", "0"):
                    value = InGroup(event.target, value)
                changes.append((step, event.name, value))
            elif event.name.startswith(ACTS):
                act, _, module = event.name.partition(" ")
                if act == "unfreeze" and changes and changes[-1][:2] == (step, "frozen"):
                    continue  # the control did it
                wanted: dict[str, Any] = {"module": "" if module == "the model" else module}
                if act == "reinitialize":  # as interventions/apply.py seeds it
                    wanted["method"] = event.note.rpartition(" ")[2]
                    wanted["seed"] = random.Random(event.command_id).getrandbits(60)
                changes.append((step, act, wanted))
        elif isinstance(event, Rewound):
            missing[f"Step {step}: going back to step {event.to_step}."] = None
        elif isinstance(event, FaultInjected):
            missing[f"Step {step}: the fault {event.fault or 'that was hidden'}."] = None
        elif isinstance(event, StepSkipped) and "GradScaler" not in event.reason:
            missing[f"Step {step}: an update was held back ({event.reason})."] = None
        elif isinstance(event, RunFailed) or (
            isinstance(event, RunFinished) and event.reason in ("stopped", "closed")
        ):
            last = step
    return ByHand(tuple(changes), last, tuple(missing))
