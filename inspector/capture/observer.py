"""Watches one model and its optimizers and hands over every step's numbers.

Order of events in a step::

    forward             on_forward for each module       statistics inside the hook
    backward            on_output_gradient               the first one queues on_backward_end
      end of backward   on_backward_end                  gradients: unclipped, maybe scaled
    optimizer.step()    before_step                      clipping; gradients as received
                        after_step                       updates; listener.measured, .boundary
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from inspector.capture import modules as module_records
from inspector.capture import native
from inspector.capture.attach import Attachment
from inspector.capture.cells import ParameterCells
from inspector.capture.clock import Clock
from inspector.capture.flight import Flight
from inspector.capture.forward import ForwardProbe
from inspector.capture.histograms import HistogramBatch, HistogramSchedule
from inspector.capture.listener import Listener
from inspector.capture.measured import Measured, parameter_keys
from inspector.capture.nonfinite import NonFiniteWatch, Onset, bad_loss
from inspector.capture.parameters import ParameterSet, collect
from inspector.capture.plain import Landed, PlainStep
from inspector.capture.quiet import CALLS_NS, MOST_NS, Taken
from inspector.capture.readings import rates, states, zero_grad
from inspector.capture.schedule import Schedule
from inspector.capture.stepping import OptimizerProbe, find_scaler, scale_of
from inspector.capture.transfer import Scalar
from inspector.commands import Clip

_REFRESH_STEPS = 50
_REFERENCES = 8
_SETTLED = 200
_SHORT = 0.0015  # seconds of a step in which the time machine is more than a percent


class Observer:
    """Attaches to a model and its optimizers at once; :meth:`close` leaves nothing behind.

    Attributes:
        clip, clip_threshold, zero_grad: the controls that act on gradients.
        full: whether the step that runs now is measured fully.
        late: no backward pass was noticed, so that gradients are those before the step.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        listener: Listener,
        *,
        schedule: Schedule,
        scaler: Any = None,
    ) -> None:
        self._clip: Clip = "off"
        self.clip_threshold = 1.0
        self._zero_grad = True
        self.clock = Clock()
        self.schedule = schedule
        self.closed = False
        self.late = False
        self._quiet = False
        self._listener = listener
        self._scaler = scaler
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._attachment = Attachment()
        self._failed: set[str] = set()
        self._task: int | None = None
        self._gradients_then: tuple[int | None, ...] = ()
        self._states = states if native.load() is None else native.load().states
        self._scalars: dict[str, Scalar] = {}
        self._held: Flight | Landed | None = None
        self._flights: deque[Flight | Landed] = deque()
        self._nonfinite = NonFiniteWatch()
        self._histogram_schedule = HistogramSchedule()
        self._histograms: HistogramBatch | None = None
        self.forward = ForwardProbe(
            model,
            self._attachment,
            on_forward=self._release_held,
            on_gradient=self._on_gradient,
            on_failure=self._fail,
            charge=self.clock.spend,
        )
        self._late_record = False
        self._refused = 0
        self._refresh_at = 1
        for position, optimizer in enumerate(optimizers):
            self._attach_optimizer(position, optimizer)
        self._model = weakref.ref(model, lambda _: self.close())
        self._adopt(collect(model, optimizers))
        self.full = True
        self._schedule_step()

    @property
    def clip(self) -> Clip:
        return self._clip

    @clip.setter
    def clip(self, clip: Clip) -> None:
        self._leave_stretch()
        self._clip, self._quiet = clip, False

    @property
    def zero_grad(self) -> bool:
        return self._zero_grad

    @zero_grad.setter
    def zero_grad(self, on: bool) -> None:
        self._leave_stretch()
        self._zero_grad, self._quiet = on, False

    # ------------------------------------------------------------ attaching

    def _attach_optimizer(self, position: int, optimizer: torch.optim.Optimizer) -> None:
        before: Any = partial(self._on_before_step, position)
        after: Any = partial(self._on_after_step, position)
        previous = vars(optimizer).get("zero_grad")
        inherited = previous or partial(zero_grad, weakref.ref(optimizer))
        sweep: Any = partial(self._on_zero_grad, position, inherited)
        extension = native.load()
        if position == 0 and extension is not None:
            stretch = extension.Stretch(weakref.ref(optimizer), before, after, sweep)
            before, after = stretch.before, stretch.after
            sweep = sweep if previous else stretch.sweep
            self.clock.pulse = stretch
        self._attachment.step_hooks(optimizer, before, after)
        self._attachment.replace_method(optimizer, "zero_grad", sweep)

    def _adopt(self, parameters: ParameterSet) -> None:
        """Measures these parameters from now on."""
        self.parameters = parameters
        self._keys = parameter_keys(parameters.names)
        self._remote = any(not t.is_cpu for t in parameters.tensors)
        self._lazy = any(is_lazy(t) for t in parameters.tensors)
        self._references = tuple(parameters.tensors)
        optimizers = [reference() for reference in self._optimizers]
        ours = [
            {id(p) for group in optimizer.param_groups for p in group["params"]}
            for optimizer in optimizers
            if optimizer is not None
        ]
        self._probes: list[OptimizerProbe] = []
        left = list(range(len(parameters.tensors)))
        for number in reversed(range(len(ours))):  # the first one also gets what nobody steps
            mine = left if number == 0 else [
                i for i in left if id(parameters.tensors[i]) in ours[number]
            ]  # fmt: skip
            left = [i for i in left if i not in set(mine)] if number else []
            optimizer = optimizers[number]
            assert optimizer is not None
            tensors = [parameters.tensors[i] for i in mine]
            self._probes.insert(0, OptimizerProbe(optimizer, tensors, mine))
        extension = native.load()
        self._plain: PlainStep | None = None
        if extension is not None and len(self._probes) == 1 and not self._remote:
            self._plain = PlainStep(extension, parameters, self._keys)

    def close(self) -> None:
        """Removes everything; the numbers of finished steps are still handed over."""
        if self.closed:
            return
        self._leave_stretch()
        self.closed = True
        self._attachment.remove()
        self.forward.silence()
        self._release_held()
        while self._flights:
            self._land(self._flights.popleft())
        self._probes = []
        self._plain = None
        self._references = ()
        self.parameters = ParameterSet((), (), (), ())

    # ------------------------------------------------------------ numbers from the script

    def record(self, scalars: dict[str, Scalar]) -> bool:
        """Adds to the step that runs, or to the one just finished if nothing came since.

        True when that one was waited for, and is complete now.
        """
        if self.clock.pulse.open:
            self._leave_stretch(holding=True)
            self._refused += 1
        kept: dict[str, Scalar] = {}
        for name, value in scalars.items():
            if isinstance(value, Tensor):
                if self.forward.blind:
                    self.forward.watch_boundary(value)
                kept[name] = value.item() if value.is_cpu else value.detach().reshape(())
            else:
                kept[name] = value
        flight = self._held
        self._late_record = flight is not None
        if flight is None:
            self._scalars.update(kept)
            return False
        for name, value in kept.items():
            flight.put(name, value)
        self._release_held()
        if not self.full:
            self._settle()
        return True

    # ------------------------------------------------------------ backward

    def _on_gradient(self) -> None:
        """The first gradient of a backward pass asks the engine to call at its end."""
        if self._task is not None:
            return
        self._task = torch._C._current_graph_task_id()
        if self._lazy:  # the forward pass has just made them
            self._refresh()
        self._gradients_then = self._states(self._references)
        torch.autograd.Variable._execution_engine.queue_callback(self._on_backward_end)

    def _on_backward_end(self) -> None:
        started = time.perf_counter_ns()
        try:
            self._task = None
            if self.closed:
                return
            self._release_held()
            now = self._states(self._references)
            received = now != self._gradients_then
            self.forward.end_backward(received=received, discard=len(self._probes) == 1)
            if received and "gradients" not in self._failed:
                fresh = all(version is None for version in self._gradients_then[1::2])
                for probe in self._probes:
                    if fresh:
                        probe.on_zero_grad()
                    if self._histograms is not None:
                        self._add_histograms("gradient", probe)
                    probe.on_backward_end(self.full, self.clip, self.clip_threshold)
        except Exception as error:
            self._fail("gradients", error)
        self.clock.spend(started, "gradients")

    # ------------------------------------------------------------ optimizer

    def _on_zero_grad(self, position: int, inherited: Any, *args: Any, **kwargs: Any) -> Any:
        if self.closed:
            return inherited(*args, **kwargs)
        if not self._zero_grad:
            return None
        self.clock.pulse.passes = 0
        probe = self._probes[position]
        if probe.passes and probe.unstepped and not probe.inside_step:
            self._note_skip(probe)
            if len(self._probes) == 1:
                self.forward.drop_finished_passes()
        probe.on_zero_grad()
        return inherited(*args, **kwargs)

    def _note_skip(self, probe: OptimizerProbe) -> None:
        if self._scaler is not None:
            self._listener.on_skipped("GradScaler found non-finite gradients")
        elif any(isinstance(c, float) and c > 0 for c in probe.nonfinite_now()):
            self._listener.on_skipped("the gradients were non-finite, and zero_grad came instead")

    def _on_before_step(self, position: int, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._quiet and self._held is None:
            return
        started = time.perf_counter_ns()
        try:
            self._release_held()
            if "updates" in self._failed:
                return
            if self._scaler is None and self.clock.step < 3:
                self._scaler = find_scaler()
            closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
            probe = self._probes[position]
            probe.scale = scale_of(self._scaler)
            probe.before_step(
                optimizer, closure is not None, self.full, self.clip, self.clip_threshold
            )
            if probe.late and not self.late and probe.seen_gradients:
                self.late = True
                self._listener.on_late()
        except Exception as error:
            self._fail("updates", error)
        self.clock.spend(started, "updates")

    def _on_after_step(self, position: int, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        started = time.perf_counter_ns()
        self._leave_stretch()
        try:
            if not self._quiet and "updates" not in self._failed:
                self._probes[position].after_step(self.full)
        except Exception as error:
            self._fail("updates", error)
        if position == 0:
            if not self._quiet:
                self.clock.spend(started, "updates")
                started = time.perf_counter_ns()
            try:
                self._finish_step(optimizer)
            except Exception as error:
                self._fail("step", error)
        self.clock.spend(started, "step")
        if position == 0:
            self._listener.on_boundary()

    # ------------------------------------------------------------ the end of a step

    def _finish_step(self, optimizer: Any) -> None:
        if self._quiet and self._scalars and not self._flights:
            self._finish_quietly(optimizer)
            return
        probe = self._probes[0]
        if self._quiet:
            probe.after_step(False)
        ordinary = self._histograms is None
        flight = self._gather_plainly(optimizer) or self._gather(optimizer)
        forward, gradient = self.forward.spent()
        self.clock.charge("forward", forward)
        self.clock.charge("gradients", gradient)
        wall, own = self.clock.tick()
        if ordinary:
            self.schedule.note(self.full, wall, own)
        if wall:
            flight.put("step_time", wall)
            flight.put("overhead", own / wall)
            if self.full and self.clock.shares_due():
                for name, seconds in self.clock.shares.items():
                    flight.put(f"overhead_{name}", seconds / wall)
        if self.full and self.forward.end_discovery():
            self._listener.on_described()
        if self._scalars:
            for name, value in self._scalars.items():
                flight.put(name, value)
            self._scalars = {}
            self._send(flight)
        else:
            self._held = flight
            self.forward.expect(True)
        self._schedule_step()

    def _finish_quietly(self, optimizer: Any) -> None:
        """The end of a step without anything but the script's own numbers."""
        probe = self._probes[0]
        probe.after_step(False)
        step = self.clock.step
        wall, own = self.clock.tick()
        self.schedule.note(False, wall, own)
        group = optimizer.param_groups[0]
        scalars = self._scalars
        self._scalars = {}
        found = rates(group)
        if any(isinstance(value, Tensor) for value in (*found.values(), *scalars.values())):
            flight = Flight(step, False, True)
            for name, value in {**found, **scalars}.items():
                flight.put(name, value)
            self._send(flight)
        else:
            found.update(scalars)
            if probe.passes:
                found["backward_passes"] = float(probe.passes)
            if wall:
                found["step_time"], found["overhead"] = wall, own / wall
            self._deliver(Measured(step, False, found), bad_loss(scalars.get("loss")))  # type: ignore[arg-type]
        self._schedule_step()

    # ------------------------------------------------------------ stretches of quiet steps

    def go_quiet(self, until: int) -> None:
        """Leaves the steps before ``until`` to the extension, if nothing is to be done in them."""
        pulse = self.clock.pulse
        if not self._quiet or self._held is not None or self._flights or self.closed:
            return
        if (
            pulse.open
            or native.load() is None
            or self._failed
            or self._refused > 3
            or self.forward.blind
        ):
            return
        until = min(until, self.schedule.next_full(pulse.step))
        if until - pulse.step < 2:
            return
        probe = self._probes[0]
        pulse.passes, pulse.usual = probe.passes, probe.usual
        pulse.late = self._late_record
        pulse.begin(until, MOST_NS)

    def _leave_stretch(self, *, holding: bool = False) -> None:
        """Takes over from the extension; ``holding`` keeps the last step for more numbers."""
        pulse = self.clock.pulse
        if not pulse.open:
            return
        late, taken = pulse.late, Taken(pulse)
        self.clock.resume(taken.since_ns)
        self._probes[0].count(pulse.passes)
        self._scalars = {**taken.running, **self._scalars}
        count = taken.count
        if late and holding and count and "loss" not in taken.row(count - 1):
            count -= 1
            self._held = Flight(taken.first + count, False, False)
            for name, value in taken.row(count).items():
                self._held.put(name, value)
        if count:
            own = float(taken.own[:count].mean()) + CALLS_NS / 1e9
            self.schedule.note_quiet(taken.columns["step_time"][:count], own)
            self._hand_over(taken, count)

    def _hand_over(self, taken: Taken, count: int) -> None:
        start = 0
        for bad in (*taken.bad_losses(), count):
            if start < min(bad, count):
                columns = taken.part(start, min(bad, count))
                self._listener.on_quiet(taken.first + start, columns)
            if bad < count:
                row = taken.row(bad)
                measured = Measured(taken.first + bad, False, row)
                self._deliver(measured, bad_loss(row.get("loss")))
            start = bad + 1

    def _settle(self) -> None:
        """The finished step has got its numbers: the one that runs may be quiet after all."""
        boundary = not self.zero_grad or self._scaler is not None
        self.forward.switch(full=False, root=boundary)
        self._quiet = self._may_be_quiet(self.clock.step)

    def _deliver(self, measured: Measured, onset: Onset | None) -> None:
        measured.onset = self._nonfinite.update(onset, thorough=measured.full)
        if measured.onset is not None and not measured.full:
            self.schedule.look_closer()  # what is NaN mostly stays: the next step says where
        self._listener.on_measured(measured)

    def _gather_plainly(self, optimizer: Any) -> Landed | None:
        """The step's numbers, where nothing has to be waited for or looked at by Python."""
        plain, probe = self._plain, self._probes[0]
        if not self.full or plain is None or probe.scale is not None:
            return None
        tape, cells = self.forward.taped, probe.cells()
        if tape is None or self._histograms is not None or not cells.here or self.forward.remote:
            return None
        landed = plain.finish(
            self.clock.step, cells, tape, self.forward.columns, self.forward.types
        )
        self.forward.forget_mark()
        scalars = landed.measured.scalars
        scalars.update(rates(optimizer.param_groups[0]))  # type: ignore[arg-type]
        if probe.passes:
            scalars["backward_passes"] = float(probe.passes)
        if probe.late:
            scalars["gradients_late"] = 1.0
        probe.forget_step()
        return landed

    def _gather(self, optimizer: Any) -> Flight:
        first = self._probes[0]
        flight = Flight(self.clock.step, self.full, self._remote or self.forward.remote)
        group = optimizer.param_groups[0]
        for name, value in rates(group).items():
            flight.put(name, value)
        if first.total_norm is not None and not self.full:
            flight.put("total_grad_norm", first.total_norm)
        if first.passes:
            flight.put("backward_passes", float(first.passes))
        if self.full and first.late:
            flight.put("gradients_late", 1.0)
        flight.scaled = first.scale is not None
        flight.scale = 1.0 if first.scale is None else first.scale
        flight.received_scale = 1.0 if first.received_scale is None else first.received_scale
        flight.found_inf = 0.0 if first.found_inf is None else first.found_inf
        flight.histograms = self._end_histograms()
        tape = self.forward.taped if self.full and not self._remote else None
        if tape is not None and type(flight.scale) is float:
            flight.reduce_modules(tape, self.forward.columns)
            self.forward.forget_mark()
        else:
            flight.entries, flight.output_gradients = self.forward.take()
        if self.full:
            flight.parameters = self._parameter_cells()
            flight.parameter_keys = self._keys
            flight.parameter_names = self.parameters.names
            flight.owners = self.parameters.owners
            flight.columns = self.forward.columns
            flight.module_types = self.forward.types
        for probe in self._probes[:1]:
            probe.forget_step()
        return flight

    def _add_histograms(self, kind: str, probe: OptimizerProbe) -> None:
        batch, names = self._histograms, self.parameters.names
        if batch is None or "histograms" in self._failed:
            return
        started = time.perf_counter_ns()
        try:
            for turn in self._histogram_schedule.pick(len(probe.parameters)):
                parameter = probe.parameters[turn]
                tensor = parameter.grad if kind == "gradient" else parameter
                batch.add(kind, names[probe.positions[turn]], tensor)
        except Exception as error:
            self._fail("histograms", error)
        self.clock.book("histograms", started)

    def _end_histograms(self) -> HistogramBatch | None:
        """The step's histograms; weights are those after the step."""
        batch = self._histograms
        if batch is None:
            return None
        for probe in self._probes:
            self._add_histograms("weight", probe)
        self._histogram_schedule.ended(self.clock.own_ns / 1e9)
        self._histograms = None
        return batch

    def _parameter_cells(self) -> ParameterCells:
        size = len(self.parameters.tensors)
        if len(self._probes) == 1:
            return self._probes[0].cells()
        joined = ParameterCells(size)
        for probe in self._probes:
            joined.place(probe.cells(), probe.positions)
        return joined

    def _release_held(self) -> None:
        if self._held is not None:
            flight, self._held = self._held, None
            self.forward.expect(False)
            self._send(flight)

    def _send(self, flight: Flight | Landed) -> None:
        flight.depart()
        self._flights.append(flight)
        self.receive()

    def receive(self) -> None:
        """Hands over the steps whose numbers have arrived; never waits for a device."""
        while self._flights and self._flights[0].ready():
            self._land(self._flights.popleft())

    def _land(self, flight: Flight | Landed) -> None:
        try:
            measured = flight.land()
            if flight.careful or isinstance(flight.entries, list):
                self.forward.be_careful(flight.careful)
        except Exception as error:
            self._fail("step", error)
            return
        self._deliver(measured, measured.onset)

    def set_every(self, every: int) -> None:
        """Measures every N steps from the next step on; 0 keeps to the budget by itself."""
        self._leave_stretch()
        self.schedule.set_every(every)
        self._schedule_step()

    def refresh(self) -> None:
        """Follows parameters that were frozen, released, replaced or added."""
        self._leave_stretch()
        self._refresh()

    @property
    def at_ease(self) -> bool:
        """Whether steps are so short that nothing more than the loss is looked at in most."""
        bare = self.schedule.bare
        return (
            self._quiet
            and not self._nonfinite.ongoing
            and self.schedule.every == 0
            and self.clock.step >= _SETTLED
            and bare is not None
            and bare < _SHORT
        )

    def gradients_known_bad(self, position: int) -> bool | None:
        """Whether a gradient was non-finite after backward; None if that was not measured."""
        if self._failed or position >= len(self._probes):
            return None
        probe = self._probes[position]
        if self._remote or not probe.unchanged:
            return None
        return any(c > 0 for c in probe.nonfinite_now() if isinstance(c, float))

    @property
    def backward_passes(self) -> int:
        """Backward passes that are piled up in the gradients."""
        return self._probes[0].passes if self._probes else 0

    def _schedule_step(self) -> None:
        step = self.clock.step
        spacing = self.schedule.review() if self.full else None
        if spacing is not None:
            self._listener.on_scheduled(
                "modules and parameters", spacing, f"to keep within {self.schedule.budget:.0%}"
            )
        if step >= self._refresh_at:
            self._refresh_at = step + _REFRESH_STEPS
            self._refresh()
        was_full, self.full = self.full, self.schedule.is_full(step)
        wanted = self.full and step > 0 and self._histogram_schedule.begins(step)
        if not self.full and not was_full and self._quiet and self._held is None:
            return
        self._histograms = HistogramBatch() if wanted else None
        self.forward.take_histograms(self._histograms, self._histogram_schedule)
        boundary = not self.zero_grad or self._scaler is not None
        self.forward.switch(full=self.full, root=boundary or self._held is not None)
        self._quiet = self._may_be_quiet(step)

    def _may_be_quiet(self, step: int) -> bool:
        """Whether nothing has to be done around the coming optimizer step."""
        return (
            not self.full
            and step > 2  # by then a GradScaler has been found
            and self._held is None
            and self._scaler is None
            and self.clip == "off"
            and self.zero_grad
            and not self._remote
            and not self._lazy
            and len(self._probes) == 1
        )

    def _refresh(self) -> None:
        """Follows replaced, added and lately initialized parameters."""
        model = self._model()
        optimizers = [reference() for reference in self._optimizers]
        if model is None or any(optimizer is None for optimizer in optimizers):
            return
        if self._lazy or not self.parameters.matches(model, optimizers):
            self._adopt(collect(model, optimizers))
            self._listener.on_described()
        with_gradient = [p for p in self.parameters.tensors if p.grad is not None]
        if with_gradient:
            stride = max(1, len(with_gradient) // _REFERENCES)
            self._references = tuple(with_gradient[::stride][: _REFERENCES + 1])

    def _fail(self, probe: str, error: Exception) -> None:
        """Switches a failing probe off; reports it once."""
        if probe in self._failed:
            return
        self._failed.add(probe)
        if probe == "gradients":
            for optimizer_probe in self._probes:
                optimizer_probe.sound = False
        self.forward.mark_broken(self._failed)
        self._listener.on_failed(probe, error)

    # ------------------------------------------------------------ documents

    def modules_document(self) -> dict[str, Any]:
        """The ``modules`` document."""
        trained = frozenset(
            name
            for name, tensor in zip(self.parameters.names, self.parameters.tensors, strict=True)
            if tensor.grad is not None
        )
        return {"modules": module_records.document(self.forward.records, trained)}
