"""The meeting of capture and store: what is measured becomes rows and events.

Everything here runs in the training thread; what is done between two steps is in
``recording/boundary.py``. A fault of ours never reaches the training script.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from inspector.capture import modules as module_records
from inspector.capture.measured import Measured, Table
from inspector.capture.nonfinite import Onset
from inspector.capture.observer import Observer
from inspector.capture.quiet import Column
from inspector.capture.reductions import is_sharded
from inspector.capture.schedule import Schedule
from inspector.capture.skips import Skipped, worth
from inspector.capture.steering import Steering
from inspector.capture.step_snapshots import StepSnapshots
from inspector.capture.structure import StructureProbe
from inspector.capture.transfer import Scalar
from inspector.capture.uncompiled import never_compiled
from inspector.commands import Controls
from inspector.events import (
    BackwardCaptured,
    Event,
    GraphCaptured,
    NonFinite,
    Notice,
    ProbeFailed,
    RunFinished,
    RunStarted,
    ScheduleChanged,
)
from inspector.interventions.apply import Interventions
from inspector.recording.boundary import Boundary
from inspector.recording.inbox import Inbox
from inspector.recording.rows import CONTEXT, Rows
from inspector.recording.skipped_steps import SkippedSteps
from inspector.recording.successors import Successors
from inspector.store.agreement import Agreement
from inspector.store.layout import BLOBS
from inspector.store.writer import Writer
from inspector.timemachine.incidents import Incidents
from inspector.timemachine.machine import TimeMachine

_LATE = (
    "No backward pass that leaves gradients in the model was noticed, so they are measured right "
    "before the optimizer's step: if the script clips them, they are shown as clipped."
)
_SHARDED = (
    "Parameters are sharded over ranks (FSDP): their norms are those of each rank's part, the "
    "program is not examined for most of the diagnosis, and the time machine is off."
)


class Recorder:
    """Records one rank of a run; see :func:`inspector.watching.watch` for the arguments."""

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        run_path: Path,
        *,
        rank: int = 0,
        ranks: int = 1,
        every: int = 0,
        scaler: Any = None,
        controls: Controls | None = None,
        total_steps: int | None = None,
        environment: dict[str, Any] | None = None,
        loss_fn: Any = None,
        loader: Any = None,
        first_step: int = 0,
    ) -> None:
        self.closed = False
        self._boundary_due = False
        self._run_path = run_path
        self._total_steps = total_steps
        self._structure_reported = False
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.writer = Writer(run_path, rank=rank, meta={"device": str(device)})
        self._rows = Rows(self.writer, device)
        self._skipped = SkippedSteps(self)
        self._snapshots = StepSnapshots(model, self)
        self.structure = StructureProbe(
            model, optimizers, loss_fn=loss_fn, loader=loader, now=lambda: self.step - first_step
        )
        # Before the observer, so that a bad update is held before anything is clipped.
        incidents = Incidents(self, model, run_path)
        self.timemachine = TimeMachine(model, optimizers, incidents, loss_fn=loss_fn)
        self._sharded = any(is_sharded(parameter) for parameter in model.parameters())
        if self._sharded:  # whatever they do with such parameters, all ranks would have to do
            self.timemachine.close()
        self._interventions = Interventions(self, model, run_path, loss_fn=loss_fn, loader=loader)
        self.observer = Observer(model, optimizers, self, schedule=Schedule(every), scaler=scaler)
        self.observer.clock.step = first_step
        self.timemachine.known_bad = self.observer.gradients_known_bad
        self.timemachine.follow(self.observer.clock.pulse)
        if (meter := self.timemachine.meter) is not None:
            self.observer.clock.meters["time_machine"] = meter
        self.timemachine.charge = partial(self.observer.clock.charge, "time_machine")
        self.structure.charge = partial(self.observer.clock.charge, "structure")
        self.steering = Steering(model, optimizers, self.observer, self.event)
        self.event(RunStarted(device=str(device), resumed_at=first_step or None))
        if self._sharded:
            self.event(Notice(message=_SHARDED))
        if environment is not None:
            self.writer.document("environment", 0, environment)
        self.on_described()
        first = controls or Controls()
        self.steering.start(first if every == 0 else first.with_value("capture_every", every))
        self._inbox = Inbox(
            run_path,
            Agreement(run_path, rank, ranks) if ranks > 1 else None,
            pulse=self.observer.clock.pulse,
            emit=self.event,
            abandoned=self._abandoned,
        )
        self._boundary = Boundary(
            self,
            inbox=self._inbox,
            structure=self.structure,
            snapshots=self._snapshots,
            interventions=self._interventions,
            first_step=first_step,
        )
        self._successors = Successors(self, model, optimizers, alone=ranks == 1)
        self._boundary.beat("running")
        self._inbox.open()

    # ------------------------------------------------------------ from the script

    @property
    def step(self) -> int:
        """The step that runs now, 0-based."""
        return self.observer.clock.step

    def event(self, event: Event) -> None:
        self.writer.event(self.step, event)

    @never_compiled
    def record(self, loss: Scalar | None, scalars: dict[str, Scalar]) -> None:
        """Adds numbers to the step; takes the loss's graph when one was asked for."""
        if isinstance(loss, Tensor) and self._snapshots.armed:
            self._snapshots.take(loss, self.step, lambda: self.observer.backward_passes)
        self.observer.attend()  # steps that are over have their own context
        for name in CONTEXT:
            if name in scalars:
                self._rows.context[name] = float(scalars.pop(name))
        if loss is not None:
            value = loss
            if isinstance(loss, Tensor):
                if loss.is_cpu and not self.observer.forward.deaf:
                    value = loss.item()
                self.structure.on_loss(loss)
            self.timemachine.witness(loss, value if isinstance(value, float) else None)
            scalars["loss"] = value
        if scalars and self.observer.record(scalars) and not self._boundary_due:
            self._boundary.hand_over()

    @property
    def take(self) -> Callable[[Tensor | float | None, dict[str, Any]], bool]:
        """Takes what is recorded in a quiet step; where it answers False, :meth:`record` does."""
        return self.observer.clock.pulse.take  # type: ignore[no-any-return]

    @never_compiled
    def amend(self, scalars: dict[str, Scalar]) -> None:
        """Replaces numbers of the step that were recorded before."""
        self.observer.record(scalars)

    @property
    def faults(self) -> list[str]:
        """Titles of the faults that were put into the model and are still there."""
        return self._interventions.titles

    def expect(self, total_steps: int) -> None:
        """How many steps the run will have."""
        self._total_steps = total_steps

    def pause(self, reason: str) -> None:
        """Holds training at the next boundary."""
        self.steering.pause(reason)
        self.observer.clock.pulse.alarm = 1

    def validation(self, scalars: dict[str, float]) -> None:
        """Numbers at the last finished step; several calls in one step may add to each other."""
        self._rows.validation(max(0, self.step - 1), scalars)

    def close(self, last: Event | None = None) -> None:
        """Ends recording and gives back everything that was attached or changed."""
        if self.closed:
            return
        self.closed = True
        self._inbox.close()
        self._successors.close()
        self._interventions.close()
        self.timemachine.close()
        self._skipped.close()
        self.observer.close()
        self.structure.settle()
        self.store_structure()  # as it is in training
        self.steering.restore()
        self.structure.close()
        self._snapshots.disarm()
        if last is not None:
            self.event(last)
        self._boundary.beat("finished")
        self.writer.close()

    # ------------------------------------------------------------ from the observer

    def on_measured(self, measured: Measured) -> None:
        self._rows.add(measured)
        if measured.skipped:
            self._skipped.add(
                Skipped(
                    measured.step,
                    measured.skipped,
                    loss=measured.scalars.get("loss"),
                    scale=measured.scalars.get("grad_scale"),
                    counted=True,
                )
            )
        elif self._skipped.skips.in_a_row and not self.closed:
            self._skipped.made(measured.step)
        if measured.onset is not None:
            self.report(measured.step, measured.onset)

    def on_steps(
        self,
        first: int,
        columns: dict[str, Column],
        parameters: Table | None,
        modules: Table | None,
    ) -> None:
        if self._skipped.skips.in_a_row:
            self._skipped.made(first + len(next(iter(columns.values()))) - 1)
        self._rows.extend(first, columns, parameters, modules)

    def on_boundary(self) -> None:
        """Between two steps; a loop that conducts says by itself when it gets there."""
        if self.steering.conductor is None:
            self._boundary.attend()
        else:
            self._boundary_due = True

    def boundary(self) -> None:
        """The loop that conducts is done with a step and all that belongs to it."""
        if self._boundary_due and not self.closed:
            self._boundary_due = False
            self._boundary.attend()

    def on_described(self) -> None:
        """Stores what is known of modules and parameters."""
        observer = self.observer
        measured = observer.parameters
        found = module_records.document(observer.forward.records, measured.with_gradient)
        self.writer.document("modules", self.step, found)
        parameters = measured.document()
        parameters["gradients_seen"] = "before_step" if observer.late else "after_backward"
        self.writer.document("parameters", self.step, parameters)
        self.describe_optimizers()

    def describe_optimizers(self) -> None:
        """Stores what there is to steer, where that is more than one optimizer's one group."""
        found = self.steering.optimizers_document(self.step)
        if sum(len(one["groups"]) for one in found["optimizers"]) > 1:
            self.writer.document("optimizers", self.step, found)

    def on_late(self) -> None:
        """Says that gradients may have been clipped before they were measured."""
        self.on_described()
        self.event(Notice(message=_LATE))

    def on_scheduled(self, probe: str, every: int, reason: str) -> None:
        self.event(ScheduleChanged(probe=probe, every=every, reason=reason))

    def on_skipped(self, skipped: Skipped) -> None:
        """The step that was to be is over: commands are heard here too."""
        self._skipped.heard(skipped)
        self.on_boundary()

    def on_lost_loss(self, loss: float) -> None:
        """It was recorded after the try."""
        self._skipped.recorded(loss)

    def on_failed(self, probe: str, error: Exception) -> None:
        trace = "".join(traceback.format_exception(error))
        message = f"{type(error).__name__}: {error}"
        self.event(ProbeFailed(probe=probe, error=message, traceback=trace))

    def on_graph(self, document: dict[str, Any], dot: str | None) -> None:
        step = int(document.get("step", self.step))
        if dot is not None:
            (self._run_path / BLOBS / f"graph-{step}.torchviz.dot").write_text(dot, "utf-8")
        self.writer.document("graph", step, document)
        if document.get("asked", True):
            self.event(GraphCaptured(nodes=len(document["nodes"])))

    def on_backward(self, document: dict[str, Any]) -> None:
        self.writer.document("backward", document["step"], document)
        self.event(BackwardCaptured(nodes=len(document["visits"]), nonfinite=document["nonfinite"]))

    # ------------------------------------------------------------ rows and events

    def report(self, step: int, onset: Onset) -> None:
        """Tells of something non-finite, unless the time machine has."""
        if self.timemachine.told(step):
            return
        pauses = self.steering.controls.on_nonfinite == "pause"
        self.writer.event(
            step,
            NonFinite(
                where=onset.where,
                module=onset.module,
                module_type=onset.module_type,
                parameter=onset.parameter,
                count=onset.count,
                policy="paused" if pauses else "continues",
            ),
        )
        if pauses:
            self.pause("nonfinite")

    def store_structure(self) -> None:
        """Stores what is known of the program for the diagnosis."""
        if self._sharded:
            return
        self.writer.document("structure", max(0, self.step - 1), self.structure.document())
        if self.structure.failed is not None and not self._structure_reported:
            self._structure_reported = True
            self.on_failed("structure", self.structure.failed)

    def heartbeat(self, state: str) -> None:
        """Stores that the run is alive, and what is in force."""
        self.writer.heartbeat(
            self.step,
            state,
            total_steps=self._total_steps,
            epoch=self._rows.context.get("epoch"),
            controls=_as_dict(self.steering.controls),
            stopping=self.steering.pace.stopped,
            snapshots=self.timemachine.history.held,
            skipped=self._skipped.skips.in_a_row,
            loss=worth(self._skipped.skips.loss),
        )

    def _abandoned(self) -> bool:
        """Whether the model is gone; nobody has closed the run then."""
        if self.observer.closed:
            self.close(RunFinished(reason="closed"))
        return self.observer.closed


def _as_dict(controls: Controls) -> dict[str, Any]:
    return {name: getattr(controls, name) for name in Controls.__slots__}
