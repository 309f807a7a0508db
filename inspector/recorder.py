"""The meeting of capture and store: writes rows and events, takes commands, holds training.

Everything here runs in the training thread, at the step boundary, except the small thread that
looks for commands. A fault of ours never reaches the training script.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from inspector.capture.measured import Measured, Table
from inspector.capture.memory import device_bytes, resident_bytes
from inspector.capture.nonfinite import Onset, bad_loss
from inspector.capture.observer import Observer
from inspector.capture.quiet import NOWHERE, Column, filled
from inspector.capture.reductions import is_sharded
from inspector.capture.schedule import Schedule
from inspector.capture.skips import Skipped, Skips, worth
from inspector.capture.steering import Steering
from inspector.capture.step_snapshots import StepSnapshots
from inspector.capture.structure import StructureProbe
from inspector.capture.transfer import Scalar
from inspector.commands import OF_OPTIMIZERS, Command, Controls
from inspector.events import (
    BackwardCaptured,
    CommandRefused,
    Event,
    GraphCaptured,
    NonFinite,
    Notice,
    ProbeFailed,
    RunFinished,
    RunStarted,
    ScheduleChanged,
    StepSkipped,
)
from inspector.interventions.apply import COMMANDS as INTERVENTIONS
from inspector.interventions.apply import Interventions
from inspector.quantities import SeriesKey
from inspector.store.agreement import Agreement
from inspector.store.control import ControlReader
from inspector.store.layout import ABSENT, BLOBS, F32
from inspector.store.writer import Writer
from inspector.timemachine.incidents import Incidents
from inspector.timemachine.machine import TimeMachine

_POLL_SECONDS = 0.05
_AGREE_SECONDS = 0.005
_BEAT_SECONDS = 0.5
_SLOW_SECONDS = 1.0
_CONTEXT = ("epoch", "samples")  # in force until they are given again
_LATE = (
    "No backward pass through the model was noticed, so gradients are measured right before the "
    "optimizer's step: if the script clips them, they are shown as clipped."
)
_SHARDED = (
    "Parameters are sharded over ranks (FSDP): their norms are those of each rank's part, the "
    "program is not examined for most of the diagnosis, and the time machine is off."
)


class RunColumns:
    """The run's own series: one growing tuple of keys, with gaps where nothing was measured."""

    def __init__(self) -> None:
        self.keys: tuple[SeriesKey, ...] = ()
        self._column: dict[str, int] = {}
        self._rows: dict[tuple[str, ...], tuple[F32, npt.NDArray[np.intp]]] = {}

    def row(self, scalars: dict[str, float]) -> tuple[tuple[SeriesKey, ...], F32]:
        """Keys and values of one step; the keys stay the same object until a name is new.

        The memory of the values is used again for the next step with the same names.
        """
        names = tuple(scalars)
        row = self._rows.get(names)
        if row is None:
            new = [name for name in names if name not in self._column]
            if new:
                self._column.update({name: len(self.keys) + i for i, name in enumerate(new)})
                self.keys += tuple(SeriesKey(name) for name in new)
                self._rows.clear()
            blank = np.full(len(self.keys), ABSENT, dtype=np.float32)
            row = blank, np.array([self._column[name] for name in names], dtype=np.intp)
            self._rows[names] = row
        values, places = row
        values[places] = list(scalars.values())
        return self.keys, values

    def rows(self, columns: dict[str, Column]) -> tuple[tuple[SeriesKey, ...], F32]:
        """Keys and values of consecutive steps, from columns with gaps."""
        self.row(dict.fromkeys(columns, 0.0))
        places = [self._column[name] for name in columns]
        table = np.stack(list(columns.values()), axis=1)
        values = np.full((len(table), len(self.keys)), ABSENT, dtype=np.float32)
        with np.errstate(over="ignore"):
            values[:, places] = np.where(table == NOWHERE, ABSENT, table)
        return self.keys, values


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
        self._validations: dict[str, str] = {}  # group of each scalar
        self._validated = -1
        self.closed = False
        self._first_step = first_step
        self._boundary_due = False
        self._run_path = run_path
        self._total_steps = total_steps
        self._context: dict[str, float] = {}
        self._scalars = RunColumns()
        self._next_beat = self._next_slow = 0.0
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._inbox: deque[Command] = deque()
        self._agreement = Agreement(run_path, rank, ranks) if ranks > 1 else None
        self._structure_reported = False
        self._skips = Skips()
        self._why_skipped = ""
        self._arrived = threading.Event()
        self._done = threading.Event()
        self.writer = Writer(run_path, rank=rank, meta={"device": str(self._device)})
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
        self.event(RunStarted(device=str(self._device), resumed_at=first_step or None))
        if self._sharded:
            self.event(Notice(message=_SHARDED))
        if environment is not None:
            self.writer.document("environment", 0, environment)
        self.on_described()
        first = controls or Controls()
        self.steering.start(first if every == 0 else first.with_value("capture_every", every))
        self._reader = ControlReader(run_path)
        self._beat("running")
        threading.Thread(target=self._listen, name="inspector-commands", daemon=True).start()

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
        for name in _CONTEXT:
            if name in scalars:
                self._context[name] = float(scalars.pop(name))
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
        """Numbers at the last finished step; several calls in one step may add to each other.

        A group takes one row a step, so what first comes in a second call has its own.
        """
        step = max(0, self.step - 1)
        rows: dict[str, dict[str, float]] = {}
        for name, value in scalars.items():
            usual = "validation" if step > self._validated else f"validation/{name}"
            rows.setdefault(self._validations.setdefault(name, usual), {})[name] = value
        for group, row in rows.items():
            self.writer.append(group, step, tuple(map(SeriesKey, row)), list(row.values()))
        self._validated = max(self._validated, step if "validation" in rows else -1)

    def close(self, last: Event | None = None) -> None:
        """Ends recording and gives back everything that was attached or changed."""
        if self.closed:
            return
        self.closed = True
        self._done.set()
        if self._agreement is not None:
            self._agreement.end()
        self._interventions.close()
        self.timemachine.close()
        if self._skips.total > self._skips.told:
            self._tell_skipped(Skipped(self.step, self._why_skipped))
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
        scalars = measured.scalars
        for name in _CONTEXT:
            if name in scalars:
                self._context[name] = scalars.pop(name)
        now = time.monotonic()
        if now >= self._next_slow:
            self._next_slow = now + _SLOW_SECONDS
            self._slow_scalars(scalars)
        if "epoch" in self._context:
            scalars["epoch"] = self._context["epoch"]
        if "samples" in self._context and (seconds := scalars.get("step_time")):
            scalars["samples_per_s"] = self._context["samples"] / seconds
        self.writer.append("scalar", measured.step, *self._scalars.row(scalars))
        for group, table in (("parameter", measured.parameters), ("module", measured.modules)):
            if table is not None and table.keys:
                self.writer.append(group, measured.step, table.keys, table.values)
        for histogram in measured.histograms:
            self.writer.histogram(
                measured.step,
                histogram.kind,
                histogram.subject,
                histogram.low,
                histogram.high,
                histogram.counts,
            )
        if measured.skipped:
            self._skip(
                Skipped(
                    measured.step,
                    measured.skipped,
                    loss=measured.scalars.get("loss"),
                    scale=measured.scalars.get("grad_scale"),
                    counted=True,
                )
            )
        elif self._skips.in_a_row and not self.closed:
            self._step_made(measured.step)
        if measured.onset is not None:
            self._report(measured.step, measured.onset)

    def on_steps(
        self,
        first: int,
        columns: dict[str, Column],
        parameters: Table | None,
        modules: Table | None,
    ) -> None:
        if self._skips.in_a_row:
            self._step_made(first + len(next(iter(columns.values()))) - 1)
        for name in _CONTEXT:
            if name in columns:
                columns[name] = filled(columns[name], self._context.get(name, NOWHERE))
                self._context[name] = float(columns[name][-1])
        count = len(next(iter(columns.values())))
        if "epoch" in self._context and "epoch" not in columns:
            columns["epoch"] = np.full(count, self._context["epoch"])
        samples = columns.pop("samples", self._context.get("samples"))
        if samples is not None:
            columns["samples_per_s"] = samples / columns["step_time"]
        self.writer.extend("scalar", first, *self._scalars.rows(columns))
        for group, table in (("parameter", parameters), ("module", modules)):
            if table is not None and table.keys:
                self.writer.extend(group, first, table.keys, table.values)

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
        awaited = self._commanded or steering.pace.engaged or steering.graph_wanted
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
        try:
            self._skip(skipped)
        except Exception as error:
            if not self._skips.failed:
                self.on_failed("skipped steps", error)
            self._skips.failed = True
        self.on_boundary()

    def on_lost_loss(self, loss: float) -> None:
        """It was recorded after the try; only the first in a row has something to say."""
        skips = self._skips
        skips.loss = loss
        if (onset := bad_loss(loss)) is not None and not skips.lost:
            skips.lost = True
            self._tell_skipped(Skipped(self.step, self._why_skipped))
            self._lost(self.step, onset)

    def _skip(self, skipped: Skipped) -> None:
        """Tells of a skipped step, and whether this is more than a GradScaler at work."""
        skips = self._skips
        due, known = skips.add(skipped), skips.lost
        self._why_skipped = skipped.reason
        onset = skips.examine(skipped, self.observer.parameters)
        if due or (skips.lost and not known):
            self._tell_skipped(skipped)
        if onset is not None:
            self._lost(skipped.step, onset)
        if not skipped.counted:
            self.timemachine.pass_over(over=skipped.over)

    def _tell_skipped(self, skipped: Skipped) -> None:
        skips = self._skips
        skips.told = skips.total
        self.writer.event(
            skipped.step,
            StepSkipped(
                reason=skipped.reason,
                in_a_row=max(skips.in_a_row, 1),
                total=skips.total,
                scale=skipped.scale,
                loss=worth(skips.loss),
            ),
        )

    def _lost(self, step: int, onset: Onset) -> None:
        if not self.timemachine.lost(step, onset):
            self._report(step, onset)

    def _step_made(self, step: int) -> None:
        if self._skips.made(step):
            self.timemachine.recovered()

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

    def _slow_scalars(self, scalars: dict[str, float]) -> None:
        if (resident := resident_bytes()) is not None:
            scalars["memory"] = resident
        if (allocated := device_bytes(self._device)) is not None:
            scalars["gpu_memory"] = allocated

    def _report(self, step: int, onset: Onset) -> None:
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
        if self._commanded or steering.pace.engaged or self._snapshots.armed:
            self._snapshots.finish()
            if steering.pace.step_done():
                steering.pause("steps_done")
            self._take_commands()
            self._hold()
            while self._agreement is not None and not self._agreement.leave(self.step):
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

    @property
    def _commanded(self) -> bool:
        return bool(self._inbox) or (self._agreement is not None and self._agreement.waiting)

    def _take_commands(self) -> None:
        if self._agreement is not None:
            self._agree(self._agreement)
        while self._inbox:
            command = self._inbox.popleft()
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
                self._inbox.append(heard.command)
        self.observer.clock.restart()
        if not self._inbox and self.steering.pace.paused and agreement.releases:
            self.steering.release()

    def _hold(self) -> None:
        """Waits while training is paused or slowed down; commands are heard all the time."""
        pace = self.steering.pace
        held = False
        while not self.closed and (pace.paused or pace.wait() > 0):
            held = True
            self._arrived.clear()
            if not self._inbox:
                self._arrived.wait(_BEAT_SECONDS if pace.paused else min(pace.wait(), 0.1))
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
            epoch=self._context.get("epoch"),
            controls=_as_dict(self.steering.controls),
            stopping=self.steering.pace.stopped,
            snapshots=self.timemachine.history.held,
            skipped=self._skips.in_a_row,
            loss=worth(self._skips.loss),
        )

    def _listen(self) -> None:
        """The command thread: looks into the control file, hands over at the boundary."""
        agreement = self._agreement
        while not self._done.wait(
            _AGREE_SECONDS if agreement is not None and agreement.unsettled else _POLL_SECONDS
        ):
            if self.observer.closed:  # the model is gone, and nobody has closed the run
                self.close(RunFinished(reason="closed"))
                break
            for command in self._reader.poll():
                if agreement is None:
                    self._inbox.append(command)
                else:
                    agreement.hear(command, self._alarmed)
                self.observer.clock.pulse.alarm = 1
                self._arrived.set()
            if agreement is not None and agreement.unsettled:
                agreement.settle()
                self._arrived.set()
            for refused in self._reader.refused:
                self.event(
                    CommandRefused(command_id=refused.id, name="command", reason=refused.reason)
                )
            self._reader.refused.clear()
        self._reader.close()
        if agreement is not None:
            agreement.close()

    def _alarmed(self) -> int:
        """The step that runs, after which every boundary is attended."""
        self.observer.clock.pulse.alarm = 1
        return self.step


def _as_dict(controls: Controls) -> dict[str, Any]:
    return {name: getattr(controls, name) for name in Controls.__slots__}
