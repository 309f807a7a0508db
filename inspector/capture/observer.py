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
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inspector.capture import modules as module_records
from inspector.capture import native
from inspector.capture.attach import Attachment
from inspector.capture.clock import Clock
from inspector.capture.flight import Flight
from inspector.capture.forward import ForwardProbe
from inspector.capture.full_steps import FullSteps
from inspector.capture.gathering import gather
from inspector.capture.histograms import HistogramBatch
from inspector.capture.landing import Landing
from inspector.capture.listener import Listener
from inspector.capture.measured import Measured
from inspector.capture.nonfinite import bad_loss
from inspector.capture.optimizer_groups import OtherGroups, Places
from inspector.capture.parameters import ParameterSet, collect
from inspector.capture.plain import Landed
from inspector.capture.probes import Probes
from inspector.capture.quiet import StepHooks
from inspector.capture.readings import rates, states, zero_grad
from inspector.capture.scaling import Scaling
from inspector.capture.schedule import Schedule
from inspector.capture.skips import SCALER, Skipped
from inspector.capture.stepping import OptimizerProbe
from inspector.capture.stretches import Stretches
from inspector.capture.transfer import Scalar
from inspector.capture.turns import HistogramTurns
from inspector.commands import Clip

_REFRESH_STEPS = 50
_REFERENCES = 8
_SETTLED = 200
_SHORT = 0.0015  # seconds of a step in which the time machine is more than a percent
_HURRIED = 0.001  # seconds of a step in which even a glance at the batch is


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
        self.clock = Clock(native.load())
        self.schedule = schedule
        self.closed = False
        self.late = False
        self._quiet = False
        self._listener = listener
        self._after_skip = False
        self._tried: dict[str, Scalar] = {}  # what was recorded right after a skipped try
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._attachment = Attachment()
        self._scaling = Scaling(self._attachment, self._on_scaler_step)
        self._failed: set[str] = set()
        self._task: int | None = None
        self._gradients_then: tuple[int | None, ...] = ()
        self._states = states if native.load() is None else native.load().states
        self._scalars: dict[str, Scalar] = {}
        self._other_groups = OtherGroups()
        self._turns = HistogramTurns(self.clock, self._fail)
        self.forward = ForwardProbe(
            model,
            self._attachment,
            on_forward=lambda: self._landing.release(),
            on_gradient=self._on_gradient,
            on_failure=self._fail,
            charge=self.clock.spend,
        )
        self._landing = Landing(self.forward, schedule, listener, self._fail)
        self._stretches = Stretches(self.clock, schedule, self._landing, listener)
        self._full_steps: FullSteps | None = None
        self._at_hand = False  # all numbers of the last full step were
        self._refresh_at = 1
        self._step_hooks: list[Any] = []  # one for each optimizer
        for position, optimizer in enumerate(optimizers):
            self._attach_optimizer(position, optimizer)
        self._scaling.follow(scaler)
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
        kind = StepHooks if (extension := native.load()) is None else extension.StepHooks
        reference = weakref.ref(optimizer)
        hooks = kind(self.clock.pulse, reference, before, after, sweep, position == 0)
        self._step_hooks.append(hooks)
        self._attachment.step_hooks(optimizer, hooks.before, hooks.after)
        self._attachment.replace_method(optimizer, "zero_grad", sweep if previous else hooks.sweep)

    def _adopt(self, parameters: ParameterSet) -> None:
        """Measures these parameters from now on."""
        self.parameters = parameters
        self._measured: Probes | None = Probes(parameters, self._living())
        self._probes = self._measured.each
        self._remote, self._lazy = self._measured.remote, self._measured.lazy
        self._references = tuple(parameters.tensors)
        self._full_steps = None

    def close(self) -> None:
        """Removes everything; the numbers of finished steps are still handed over."""
        if self.closed:
            return
        self._leave_stretch()
        self.closed = True
        self._attachment.remove()
        self.forward.silence()
        self._landing.release()
        self._send_rest()
        self._landing.receive(waiting=True)
        self._probes = []
        self._measured = self._full_steps = None
        self._references = ()
        self.parameters = ParameterSet((), (), (), ())

    def _send_rest(self) -> None:
        """What was recorded since the last step, of one that has not come to its end."""
        if rest := {**self._tried, **self._scalars}:
            flight = Flight(self.clock.step, False, self._remote)
            for name, value in rest.items():
                flight.put(name, value)
            self._scalars, self._tried = {}, {}
            self._landing.send(flight)

    # ------------------------------------------------------------ numbers from the script

    def attend(self) -> None:
        """The script records something that the extension has not taken."""
        self._leave_stretch(refused=True)

    def record(self, scalars: dict[str, Scalar]) -> bool:
        """Adds to the step that runs, or to the one just finished if nothing came since.

        True when that one was waited for, and is complete now.
        """
        self.attend()
        kept: dict[str, Scalar] = {}
        for name, value in scalars.items():
            if isinstance(value, Tensor):
                if self.forward.blind:
                    self.forward.watch_boundary(value)
                kept[name] = value.item() if value.is_cpu else value.detach().reshape(())
            else:
                kept[name] = value
        flight = self._landing.held
        if flight is None and self._after_skip:
            self._tried.update(kept)
            if "loss" in kept:
                self._listener.on_lost_loss(float(kept["loss"]))
            return False
        if "loss" in kept:
            self._stretches.after_step = flight is not None
        if flight is None:
            self._scalars.update(kept)
            return False
        for name, value in kept.items():
            flight.put(name, value)
        self._landing.release()
        if not self.full:
            self._settle()
        return True

    # ------------------------------------------------------------ backward

    def _on_gradient(self) -> None:
        """The first gradient of a backward pass asks the engine to call at its end."""
        if self._stretches.full is not None:
            self._stretches.full.book.announce()
            return
        if self._task is not None:
            return
        self._after_skip = False
        self._task = torch._C._current_graph_task_id()
        if self._lazy:  # the forward pass has just made them
            self._refresh()
        self._gradients_then = self._states(self._references)
        torch.autograd.Variable._execution_engine.queue_callback(self._on_backward_end)

    def _on_backward_end(self) -> None:
        started = time.perf_counter_ns()
        self._leave_full()
        try:
            self._task = None
            if self.closed:
                return
            self._landing.release()
            now = self._states(self._references)
            received = now != self._gradients_then
            self.forward.end_backward(received=received, discard=len(self._probes) == 1)
            if received and "gradients" not in self._failed:
                fresh = all(version is None for version in self._gradients_then[1::2])
                for probe in self._probes:
                    if fresh:
                        probe.on_zero_grad()
                    self._turns.add("gradient", probe, self.parameters.names)
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
        self._leave_full()
        if position == 0:
            self.clock.pulse.passes = 0
        probe = self._probes[position]
        reason = ""
        if probe.passes and probe.unstepped and not probe.inside_step:
            reason = self._why_skipped(probe)
            if len(self._probes) == 1:
                self.forward.drop_finished_passes()
        probe.on_zero_grad()
        if reason:  # a boundary: the coming steps may be left to the extension
            self._listener.on_skipped(self._skipped(reason, over=False))
        return inherited(*args, **kwargs)

    def _on_scaler_step(
        self, inherited: Any, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any
    ) -> Any:
        if self.closed:
            return inherited(optimizer, *args, **kwargs)
        known = [reference() for reference in self._optimizers]
        position = next((i for i, o in enumerate(known) if o is optimizer), None)
        if position is None:
            return inherited(optimizer, *args, **kwargs)
        hooks = self._step_hooks[position]
        stepped = hooks.stepped
        if position == 0 and self._stretches.open:
            self._stretches.note_scale(self._scaling.scaler._scale)
        result = inherited(optimizer, *args, **kwargs)
        if hooks.stepped == stepped and "updates" not in self._failed:
            self._leave_stretch()
            self._landing.release()
            probe = self._probes[position]
            probe.unstepped = False
            if len(self._probes) == 1:
                self.forward.drop_finished_passes()
            self._after_skip = self._stretches.after_step
            self._listener.on_skipped(self._skipped(SCALER, over=True))
        return result

    def _skipped(self, reason: str, *, over: bool) -> Skipped:
        """What is known of the try; GradScaler has waited for the device already."""
        scale, loss = self._scaling.factor, self._scalars.get("loss")
        return Skipped(
            self.clock.step,
            reason,
            loss=None if loss is None else float(loss),
            scale=None if scale is None else float(scale),
            over=over,
        )

    def _why_skipped(self, probe: OptimizerProbe) -> str:
        if not self._scaling.tells:
            return SCALER
        if any(isinstance(c, float) and c > 0 for c in probe.nonfinite_now()):
            return "the gradients were non-finite, and zero_grad came instead"
        return ""

    def _on_before_step(self, position: int, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._quiet and self._landing.held is None:
            return
        started = time.perf_counter_ns()
        self._leave_full()
        try:
            self._landing.release()
            if "updates" in self._failed:
                return
            self._scaling.look(self.clock.step)
            closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
            probe = self._probes[position]
            probe.scale = self._scaling.factor
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
            self._landing.release()
            if not self._quiet and "updates" not in self._failed:
                self._probes[position].after_step(self.full)
                for probe in self._probes:  # it may have left gradients to the others' parameters
                    probe.unstepped = False
        except Exception as error:
            self._fail("updates", error)
        if position == 0:
            self._after_skip = False
            if self._quiet:
                self._probes[0].scale = self._scaling.factor
            else:
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
        if self._quiet and self._scalars and not self._landing.pending and not self._incomplete:
            self._finish_quietly(optimizer)
            return
        probe = self._probes[0]
        if self._quiet:
            probe.after_step(False)
        ordinary = self._turns.batch is None
        self._forget_failed_pass()
        assert self._measured is not None
        flight = gather(
            self.clock.step,
            optimizer,
            self._measured,
            self.forward,
            full=self.full,
            histograms=self._turns.end(self._probes, self.parameters.names),
        )
        for name, value in self._rates_of_others().items():
            flight.put(name, value)
        self._at_hand = isinstance(flight, Landed)
        forward, gradient = self.forward.spent()
        self.clock.charge("forward", forward)
        self.clock.charge("gradients", gradient)
        wall, own = self.clock.tick()
        if ordinary:
            self.schedule.note(self.full, wall, own)
        if wall:
            flight.put("step_time", wall)
            flight.put("overhead", own / wall)
            for name, share in self.clock.shares().items():
                flight.put(name, share)
        if self.full and self.forward.end_discovery():
            self._listener.on_described()
        incomplete, self._tried = self._incomplete, {}
        for name, value in self._scalars.items():
            flight.put(name, value)
        self._scalars = {}
        if incomplete:
            self._landing.hold(flight)
        else:
            self._landing.send(flight)
        self._schedule_step()

    def _rates_of_others(self) -> dict[str, Scalar]:
        """What all groups but the first one of the first optimizer step with."""
        return self._other_groups.read(self._living(), full=self.full)

    def _others(self) -> Places:
        """The groups whose learning rates the extension is to read."""
        return self._other_groups.places(self._living())

    def _living(self) -> list[torch.optim.Optimizer]:
        return [o for reference in self._optimizers if (o := reference()) is not None]

    @property
    def _incomplete(self) -> bool:
        """Whether the step's numbers are still to come, as far as the last steps tell."""
        late = self._stretches.after_step and "loss" not in self._scalars
        return late or not self._scalars

    def _finish_quietly(self, optimizer: Any) -> None:
        """The end of a step without anything but the script's own numbers."""
        probe = self._probes[0]
        probe.after_step(False)
        step = self.clock.step
        wall, own = self.clock.tick()
        self.schedule.note(False, wall, own)
        group = optimizer.param_groups[0]
        scalars = self._scalars
        self._scalars, self._tried = {}, {}
        found = {**rates(group), **self._rates_of_others()}
        if any(isinstance(value, Tensor) for value in (*found.values(), *scalars.values())):
            flight = Flight(step, False, True)
            for name, value in {**found, **scalars}.items():
                flight.put(name, value)
            self._landing.send(flight)
        else:
            found.update(scalars)
            if probe.scale is not None:
                found["grad_scale"] = float(probe.scale)
            if probe.passes:
                found["backward_passes"] = float(probe.passes)
            if wall:
                found["step_time"], found["overhead"] = wall, own / wall
                found.update(self.clock.shares())
            self._landing.deliver(Measured(step, False, found), bad_loss(scalars.get("loss")))  # type: ignore[arg-type]
        self._schedule_step()

    # ------------------------------------------------------------ stretches of ordinary steps

    @property
    def ordinary(self) -> bool:
        """Whether the extension can do all that is to be done in the coming steps."""
        landing = self._landing
        if landing.held is not None or landing.pending or self._scalars or self._after_skip:
            return False
        if native.load() is None or self.closed or self._failed or self.forward.blind:
            return False
        return self._quiet or (self.full and self._may_be_left())

    def hand_over(self, until: int) -> None:
        """Leaves the steps before ``until`` to the extension, if they are :attr:`ordinary`."""
        if not self.ordinary:
            return
        probe = self._probes[0]
        if self._quiet:
            until = min(until, self.schedule.next_full(self.clock.step))
            self._stretches.enter(until, probe, self._others())
            return
        steps, measured, references = self._full_steps, self._measured, self._references
        assert measured is not None
        if steps is None or not steps.fits(measured, self.forward, references):
            steps = FullSteps(measured, self.forward, references, self._on_backward_end)
            self._full_steps = steps
        self._stretches.enter(until, probe, self._others(), steps)

    def _leave_stretch(self, *, refused: bool = False) -> None:
        """Takes over from the extension, if steps were left to it."""
        if not self._stretches.open:
            return
        try:
            running = self._stretches.leave(self._probes[0], refused=refused)
        except Exception as error:
            self._fail("step", error)
            return
        self._scalars = {**running.scalars, **self._scalars}
        for hooks, probe in zip(self._step_hooks[1:], self._probes[1:], strict=False):
            if hooks.swept:
                hooks.swept = 0
                probe.on_zero_grad()
        if running.pass_began is not None:
            self._task, self._gradients_then = 0, running.pass_began

    def _leave_full(self) -> None:
        """The step that runs is out of the ordinary."""
        if self._stretches.full is not None:
            self._leave_stretch()

    def _forget_failed_pass(self) -> None:
        """A backward pass that has raised never calls at its end."""
        if self._task is not None and torch._C._current_graph_task_id() == -1:
            self._task = None
            self.forward.forget_pass()

    def _settle(self) -> None:
        """The finished step has got its numbers: the one that runs may be quiet after all."""
        self.forward.switch(full=False, root=self._passes_matter)
        self._quiet = self._may_be_quiet(self.clock.step)

    def receive(self) -> None:
        """Hands over the steps whose numbers have arrived; never waits for a device."""
        self._landing.receive()

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
            and not self._landing.nonfinite.ongoing
            and self.schedule.every == 0
            and self.clock.step >= _SETTLED
            and bare is not None
            and bare < _SHORT
        )

    @property
    def hurried(self) -> bool:
        """Whether steps are so short that nothing can be spared for them."""
        bare = self.schedule.bare
        return bare is not None and bare < _HURRIED

    def gradients_known_bad(self, position: int) -> bool | None:
        """Whether a gradient is non-finite, right before the step; None where nobody looks now."""
        if self._failed or self._remote or not self.full or position >= len(self._probes):
            return None
        if self._stretches.full is not None:
            return self._stretches.full.book.receives_nonfinite()  # type: ignore[no-any-return]
        return self._probes[position].receives_nonfinite()

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
        wanted = self.full and step > 0 and self._turns.schedule.begins(step, self.schedule.bare)
        if not self.full and not was_full and self._quiet and self._landing.held is None:
            return
        self._turns.batch = HistogramBatch() if wanted else None
        self.forward.take_histograms(self._turns.batch, self._turns.schedule)
        root = self._passes_matter or self._landing.held is not None
        self.forward.switch(full=self.full, root=root)
        self._quiet = self._may_be_quiet(step)

    def _may_be_quiet(self, step: int) -> bool:
        """Whether nothing has to be done around the coming optimizer step."""
        return not self.full and self._landing.held is None and self._untouched(step)

    def _may_be_left(self) -> bool:
        """Whether the coming steps are measured fully, and as the last one."""
        return (
            self.schedule.each
            and self._at_hand
            and self._untouched(self.clock.step)
            and self._turns.batch is None
            and not self._landing.nonfinite.ongoing
            and not self._probes[0].late
            and len(self._probes) == 1
            and self._scaling.scaler is None
            and self._probes[0].updates.native
            and len(self._references) <= _REFERENCES + 1  # gradients have been seen
        )

    @property
    def _passes_matter(self) -> bool:
        """Whether backward passes are to be noticed in steps that are not measured fully."""
        return not self.zero_grad or not self._scaling.is_simple(self._living())

    def _untouched(self, step: int) -> bool:
        """Whether nobody acts on the gradients, and everything is on the CPU."""
        return (
            step > 2  # by then a GradScaler has been found
            and self._scaling.is_simple(self._living())
            and self.clip == "off"
            and self.zero_grad
            and not self._remote
            and not self._lazy
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
            references = tuple(with_gradient[::stride][: _REFERENCES + 1])
            if [*map(id, references)] != [*map(id, self._references)]:
                self._references = references

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
