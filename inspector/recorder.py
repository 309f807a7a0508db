"""The meeting of capture and store: writes rows and events, takes commands, holds training.

Everything here runs in the training thread, at the step boundary, except the small thread that
looks for commands. A fault of ours never reaches the training script.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

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
from inspector.commands import OF_OPTIMIZERS, Controls
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
from inspector.interventions.apply import COMMANDS as INTERVENTIONS
from inspector.interventions.apply import Interventions
from inspector.recording.inbox import Inbox
from inspector.recording.rows import CONTEXT, Rows
from inspector.recording.skipped_steps import SkippedSteps
from inspector.store.agreement import Agreement
from inspector.store.layout import BLOBS
from inspector.store.writer import Writer
from inspector.timemachine.incidents import Incidents
from inspector.timemachine.machine import TimeMachine

_BEAT_SECONDS = 0.5
_LATE = (
    "No backward pass through the model was noticed, so gradients are measured right before the "
    "optimizer's step: if the script clips them, they are shown as clipped."
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
        self._first_step = first_step
        self._boundary_due = False
        self._run_path = run_path
        self._total_steps = total_steps
        self._next_beat = 0.0
        self._structure_reported = False
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self.writer = Writer(run_path, rank=rank, meta={"device": str(device)})
        self._rows = Rows(self.writer, device)
        self._skipped = SkippedSteps(self)
        self._snapshots = StepSnapshots(model, self)
        self._structure = StructureProbe(
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
        self._structure.charge = partial(self.observer.clock.charge, "structure")
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
        self._beat("running")
        self._inbox.open()

    # ------------------------------------------------------------ from the script

    @property
    def step(self) -> int:
        """The step that runs now, 0-based."""
        return self.observer.clock.step

    def event(self, event: Event) -> None:
        self.writer.event(self.step, event)

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
                if loss.is_cpu and not self.observer.forward.blind:
                    value = loss.item()
                self._structure.on_loss(loss)
            self.timemachine.witness(loss, value if isinstance(value, float) else None)
            scalars["loss"] = value
        if scalars and self.observer.record(scalars) and not self._boundary_due:
            self._hand_over()

    @property
    def take(self) -> Callable[[Tensor | float | None, dict[str, Any]], bool]:
        """Takes what is recorded in a quiet step; where it answers False, :meth:`record` does."""
        return self.observer.clock.pulse.take  # type: ignore[no-any-return]

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
        self._interventions.close()
        self.timemachine.close()
        self._skipped.close()
        self.observer.close()
        self._store_structure()  # as it is in training
        self.steering.restore()
        self._structure.close()
        self._snapshots.disarm()
        if last is not None:
            self.event(last)
        self._beat("finished")
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
            self._between_steps()
        else:
            self._boundary_due = True

    def boundary(self) -> None:
        """The loop that conducts is done with a step and all that belongs to it."""
        if self._boundary_due and not self.closed:
            self._boundary_due = False
            self._between_steps()

    def _between_steps(self) -> None:
        """A fault here is ours, and must not stop the script."""
        try:
            self._attend()
            self._hand_over()
        except Exception as error:
            self.on_failed("boundary", error)

    def _hand_over(self) -> None:
        """Leaves the coming steps to the capture, up to the next that has to be attended."""
        if not self.observer.ordinary:
            return
        pulse, steering = self.observer.clock.pulse, self.steering
        pulse.alarm = 0  # before looking: what comes later sets it again
        awaited = self._inbox.waiting or steering.pace.engaged or steering.graph_wanted
        if awaited or self._snapshots.armed or self.closed:
            return
        until = self._first_step + self._structure.quiet_until(self.step - self._first_step)
        if (due := self._interventions.due) is not None:
            until = min(until, due)
        if every := steering.controls.graph_every:
            until = min(until, (self.step // every + 1) * every)
        pulse.calm = self.timemachine.asleep
        pulse.witness = self.timemachine.witness
        self.observer.hand_over(until)

    def on_described(self) -> None:
        """Stores what is known of modules and parameters."""
        observer = self.observer
        self.writer.document("modules", self.step, observer.modules_document())
        parameters = observer.parameters.document()
        parameters["gradients_seen"] = "before_step" if observer.late else "after_backward"
        self.writer.document("parameters", self.step, parameters)
        self._describe_optimizers()

    def _describe_optimizers(self) -> None:
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

    def _store_structure(self) -> None:
        if self._sharded:
            return
        self.writer.document("structure", max(0, self.step - 1), self._structure.document())
        if self._structure.failed is not None and not self._structure_reported:
            self._structure_reported = True
            self.on_failed("structure", self._structure.failed)

    # ------------------------------------------------------------ the boundary

    def _attend(self) -> None:
        steering = self.steering
        steering.step_done()
        if self._structure.on_step(self.step - 1 - self._first_step):
            self._store_structure()
        if self._inbox.waiting or steering.pace.engaged or self._snapshots.armed:
            self._snapshots.finish()
            if steering.pace.step_done():
                steering.pause("steps_done")
            self._take_commands()
            self._hold()
            while (agreement := self._inbox.agreement) and not agreement.leave(self.step):
                self._take_commands()
                self._hold()
        self._interventions.at_boundary()
        calm = self.observer.at_ease and steering.controls.on_nonfinite == "continue"
        self.timemachine.rest(calm, glancing=not self.observer.hurried)
        every = steering.controls.graph_every
        if (wanted := steering.backward_wanted) is not None:
            steering.backward_wanted = None
            self._snapshots.arm_backward(wanted)
        if steering.graph_wanted or (every and self.step % every == 0):
            steering.graph_wanted = False
            self._snapshots.arm_graph()
        self._live_on()

    def _take_commands(self) -> None:
        if self._inbox.agreement is not None:
            self._agree(self._inbox.agreement)
        while self._inbox.commands:
            command = self._inbox.commands.popleft()
            intervenes = command.name in INTERVENTIONS
            (self._interventions if intervenes else self.steering).apply(command)
            if intervenes or command.name == "set":
                self._structure.look_again()
            if intervenes or command.control in OF_OPTIMIZERS:
                self._describe_optimizers()

    def _agree(self, agreement: Agreement) -> None:
        """Takes what all ranks do at this boundary; one that waits goes on to a later one."""
        for heard in agreement.due(self.step, beat=self._live_on):
            if heard.refusal:
                self.steering.refuse(heard.command, heard.refusal)
            else:
                self._inbox.commands.append(heard.command)
        self.observer.clock.restart()
        if not self._inbox.commands and self.steering.pace.paused and agreement.releases:
            self.steering.release()

    def _hold(self) -> None:
        """Waits while training is paused or slowed down; commands are heard all the time."""
        pace = self.steering.pace
        held = False
        while not self.closed and (pace.paused or pace.wait() > 0):
            held = True
            self._inbox.wait(_BEAT_SECONDS if pace.paused else min(pace.wait(), 0.1))
            self.observer.receive()
            self._take_commands()
            if pace.paused or time.monotonic() >= self._next_beat:
                self._beat("paused" if pace.paused else "running")
        pace.began()
        if held:
            self.observer.clock.restart()
            self._beat("running")

    def _live_on(self) -> None:
        """A sign of life, if one is due."""
        if time.monotonic() >= self._next_beat:
            self._beat("paused" if self.steering.pace.paused else "running")

    def _beat(self, state: str) -> None:
        self._next_beat = time.monotonic() + _BEAT_SECONDS
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
