"""What is done when the time machine has found something: events, the report, the pause."""

from __future__ import annotations

import dataclasses
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from inspector.events import NonFinite, Origin, Rewound
from inspector.timemachine.bug_report import write_report
from inspector.timemachine.found import Found

if TYPE_CHECKING:
    from inspector.recorder import Recorder


class Incidents:
    """The time machine's listener on behalf of a recorder."""

    def __init__(self, recorder: Recorder, model: nn.Module, run_path: Path) -> None:
        self._recorder = recorder
        self._model = weakref.ref(model)
        self._run_path = run_path
        self._places: set[tuple[object, ...]] = set()  # of the present spell

    @property
    def step(self) -> int:
        return self._recorder.step

    def nonfinite_policy(self) -> str:
        return self._recorder.steering.controls.on_nonfinite

    def on_nonfinite(self, step: int, origin: Origin, found: Found) -> None:
        """Tells where it began; the script that reproduces it lies beside the run's data."""
        recorder = self._recorder
        policy = self.nonfinite_policy()
        try:
            if (model := self._model()) is not None:
                loss_fn = recorder.timemachine.loss_fn
                report = write_report(self._run_path, model, loss_fn, origin, found)
                origin = dataclasses.replace(origin, report=report)
        except Exception as error:
            recorder.on_failed("bug report", error)
        place = origin.phase, origin.op, origin.module, origin.line
        if not found.again:
            self._places.clear()
        if place not in self._places:  # a spell at one place is told once
            recorder.writer.event(step, _nonfinite(origin, found, policy))
        self._places.add(place)
        recorder.writer.event(step, origin)
        if policy == "pause":
            recorder.pause("nonfinite")

    def on_rewound(self, to_step: int, reason: str) -> None:
        self._recorder.event(Rewound(to_step=to_step, reason=reason))

    def on_failed(self, probe: str, error: Exception) -> None:
        self._recorder.on_failed(probe, error)


def _nonfinite(origin: Origin, found: Found, policy: str) -> NonFinite:
    seen = "loss" if found.loss else "gradient"
    where = {"forward": "loss" if origin.in_loss else "activation", "backward": "backward"}
    after = {"pause": "paused", "skip": "skipped", "continue": "continues"}
    if found.onset is not None and origin.phase == "unknown":
        seen, module, parameter = found.onset.where, found.onset.module, found.onset.parameter
    elif origin.phase == "parameters":
        parameter = origin.op.partition(" ")[2]
        module = parameter.rpartition(".")[0]
    else:
        module, parameter = origin.module, None
    return NonFinite(
        where=where.get(origin.phase, "parameter" if origin.phase == "parameters" else seen),
        module=module,
        module_type="" if parameter else origin.module_type,
        parameter=parameter,
        op="" if parameter else origin.op,
        file=origin.file,
        line=origin.line,
        code=origin.code,
        count=sum(int(row.get("nonfinite") or 0) for row in origin.tensors) or 1,
        policy=after.get(policy, ""),
    )
