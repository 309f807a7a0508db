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

from inspector.capture import native
from inspector.capture.attach import Attachment
from inspector.capture.backward_passes import BackwardPasses
from inspector.capture.clock import Clock
from inspector.capture.forward import ForwardProbe
from inspector.capture.landing import Landing
from inspector.capture.listener import Listener
from inspector.capture.parameters import ParameterSet
from inspector.capture.plan import Plan
from inspector.capture.quiet import StepHooks
from inspector.capture.readings import zero_grad
from inspector.capture.scaling import Scaling
from inspector.capture.schedule import Schedule
from inspector.capture.step_numbers import StepNumbers
from inspector.capture.stretches import Stretches
from inspector.capture.transfer import Scalar
from inspector.capture.tries import Tries
from inspector.capture.turns import HistogramTurns
from inspector.capture.uncompiled import never_compiled
from inspector.capture.watched import Watched
from inspector.commands import Clip

_REFRESH_STEPS = 50


class Observer:
    """Attaches to a model and its optimizers at once; :meth:`close` leaves nothing behind.

    Attributes:
        clip, zero_grad: the controls that act on gradients, with ``plan.clip_threshold``.
        plan: the kind of the step that runs.
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
        self.clock = Clock(native.load())
        self.schedule = schedule
        self.closed = False
        self.late = False
        self._listener = listener
        self._attachment = Attachment()
        self._scaling = Scaling(self._attachment, self._on_scaler_step)
        self._failed: set[str] = set()
        self._turns = HistogramTurns(self.clock, self._fail)
        self.forward = ForwardProbe(
            model,
            self._attachment,
            on_forward=lambda: self._landing.release(),
            on_gradient=self._on_gradient,
            on_failure=self._fail,
            on_new=self._leave_stretch,
            charge=self.clock.spend,
        )
        self._landing = Landing(self.forward, schedule, listener, self._fail)
        self._stretches = Stretches(
            self.forward, self.clock, schedule, self._landing, listener, self._on_backward_end
        )
        self._refresh_at = 1
        self._dropped = self._by_hand = False  # passes that leave their gradients to the script
        self._missed = -1  # the step whose passes were taken for evaluation
        self._unseen: Any = None  # where what was measured of steps that nobody watched ends
        self._step_hooks: list[Any] = []  # one for each optimizer
        self._around = [Attachment() for _ in optimizers]
        for position, optimizer in enumerate(optimizers):
            self._attach_optimizer(position, optimizer)
        self._scaling.follow(scaler)
        self._watched = Watched(model, optimizers, self.close)
        self._passes = BackwardPasses(self.parameters.tensors)
        self._numbers = StepNumbers(
            self._watched,
            self.forward,
            self._turns,
            self._landing,
            self._stretches,
            self.clock,
            schedule,
            listener,
        )
        self._tries = Tries(self._watched, self.forward, self._scaling, self._numbers, self.clock)
        self.plan = Plan(
            self._watched,
            self.forward,
            self._turns,
            self._landing,
            self._scaling,
            self.clock,
            schedule,
            listener,
        )
        self.plan.begin(0)

    @property
    def parameters(self) -> ParameterSet:
        """Those that are measured."""
        return self._watched.parameters

    @property
    def clip(self) -> Clip:
        return self.plan.clip

    @clip.setter
    def clip(self, clip: Clip) -> None:
        self._leave_stretch()
        self.plan.clip, self.plan.quiet = clip, False

    @property
    def zero_grad(self) -> bool:
        return self.plan.zero_grad

    @zero_grad.setter
    def zero_grad(self, on: bool) -> None:
        self._leave_stretch()
        self.plan.zero_grad, self.plan.quiet = on, False

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
        self._step_hooks[position : position + 1] = [hooks]
        around = self._around[position]
        around.step_hooks(optimizer, hooks.before, hooks.after)
        around.replace_method(optimizer, "zero_grad", sweep if previous else hooks.sweep)

    def follow_optimizer(self, position: int, optimizer: torch.optim.Optimizer) -> None:
        """Watches another optimizer, which is about to step, in the place of one."""
        self._leave_stretch()
        self._around[position].remove()
        self._attach_optimizer(position, optimizer)
        if self._unseen is not None:
            self.forward.keep_from(self._unseen)
            self._unseen = None
        self._watched.replace(position, optimizer)
        self._passes.follow(self.parameters.tensors)
        self._stretches.forget()
        self._refresh_at = self.clock.step
        self._listener.on_described()

    def pass_over(self) -> None:
        """What was measured so far belongs to a step of an optimizer that is not watched.

        It is of no account if that one is watched from its next step on.
        """
        self._leave_stretch()
        self._unseen = self.forward.mark
        for probe in self._watched.each:
            probe.pass_over()
        self.clock.restart()

    def stepped(self, position: int) -> int:
        """How often an optimizer has stepped."""
        return int(self._step_hooks[position].stepped)

    def held(self, position: int) -> Sequence[torch.Tensor]:
        """What an optimizer steps."""
        return self._watched.each[position].optimized if self._watched.each else ()

    def close(self) -> None:
        """Removes everything; the numbers of finished steps are still handed over."""
        if self.closed:
            return
        self._leave_stretch()
        self.closed = True
        for around in reversed(self._around):
            around.remove()
        self._attachment.remove()
        self.forward.silence()
        self._landing.release()
        self._numbers.send_rest()
        self._landing.receive(waiting=True)
        self._watched.forget()
        self._passes.follow(())
        self._stretches.forget()

    # ------------------------------------------------------------ numbers from the script

    def attend(self) -> None:
        """The script records something that the extension has not taken."""
        self._leave_stretch(refused=True)

    def record(self, scalars: dict[str, Scalar]) -> bool:
        """Adds to the step that runs, or to the one just finished if nothing came since.

        True when that one was waited for, and is complete now.
        """
        self.attend()
        if not self._numbers.record(scalars):
            return False
        if not self.plan.full:
            self.plan.settle()
        return True

    # ------------------------------------------------------------ backward

    @never_compiled
    def _on_gradient(self) -> None:
        """The first gradient of a backward pass asks the engine to call at its end."""
        if self._stretches.full is not None:
            self._stretches.full.book.announce()
            return
        passes = self._passes
        if passes.task is not None:
            return
        self._numbers.after_skip = False
        passes.task = torch._C._current_graph_task_id()
        if self._watched.lazy:  # the forward pass has just made them
            self._refresh()
        passes.begin(self._on_backward_end)

    @never_compiled
    def _on_backward_end(self) -> None:
        started = time.perf_counter_ns()
        if self._stretches.full is not None:
            self._leave_stretch()
        try:
            self._passes.task = None
            if self.closed:
                return
            self._landing.release()
            plan, probes, parameters = self.plan, self._watched.each, self._watched.parameters
            received, fresh = self._passes.end(parameters.tensors)
            discard = len(probes) == 1 and not received and not self._by_hand
            self.forward.end_backward(received=received, discard=discard)
            self._dropped = self._dropped or discard
            self._by_hand = self._by_hand and not received
            if received and "gradients" not in self._failed:
                for probe in probes:
                    if fresh:
                        probe.on_zero_grad()
                    self._turns.add("gradient", probe, parameters.names)
                    probe.on_backward_end(plan.full, plan.clip, plan.clip_threshold)
        except Exception as error:
            self._fail("gradients", error)
        self.clock.spend(started, "gradients")

    # ------------------------------------------------------------ optimizer

    @never_compiled
    def _on_zero_grad(self, position: int, inherited: Any, *args: Any, **kwargs: Any) -> Any:
        if self.closed:
            return inherited(*args, **kwargs)
        if not self.plan.zero_grad:
            return None
        if self._stretches.full is not None:
            self._leave_stretch()
        if position == 0:
            self.clock.pulse.passes = 0
        probe = self._watched.each[position]
        skipped = None
        if probe.passes and probe.unstepped and not probe.inside_step:
            skipped = self._tries.cleared(probe)
        probe.on_zero_grad()
        if skipped is not None:  # a boundary: the coming steps may be left to the extension
            self._listener.on_skipped(skipped)
        return inherited(*args, **kwargs)

    def _on_scaler_step(
        self, inherited: Any, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any
    ) -> Any:
        if self.closed:
            return inherited(optimizer, *args, **kwargs)
        position = self._watched.position(optimizer)
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
            skipped = self._tries.refused(self._watched.each[position])
            self._numbers.after_skip = self._stretches.after_step
            self._listener.on_skipped(skipped)
        return result

    @never_compiled
    def _on_before_step(self, position: int, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self.plan.quiet and self._landing.held is None:
            return
        started = time.perf_counter_ns()
        if self._stretches.full is not None:
            self._leave_stretch()
        try:
            self._landing.release()
            if "updates" in self._failed:
                return
            self._scaling.look(self.clock.step)
            closure = kwargs.get("closure") or (args[1] if len(args) > 1 else None)
            probe, plan = self._watched.each[position], self.plan
            probe.scale = self._scaling.factor
            if plan.full and self.forward.has_missed():
                self._missed = self.clock.step
            if self._missed == self.clock.step:
                probe.forgo()
            probe.before_step(
                optimizer, closure is not None, plan.full, plan.clip, plan.clip_threshold
            )
            widened = probe.late and self._passes.widen(self._watched.parameters.tensors)
            if probe.late and not widened and probe.seen_gradients:
                self._by_hand = self._by_hand or self._dropped  # by autograd.grad(), not backward()
                if not self.late:
                    self.late = True
                    self._listener.on_late()
        except Exception as error:
            self._fail("updates", error)
        self.clock.spend(started, "updates")

    @never_compiled
    def _on_after_step(self, position: int, optimizer: Any, _args: Any, _kwargs: Any) -> None:
        started = time.perf_counter_ns()
        self._leave_stretch()
        plan = self.plan
        try:
            self._landing.release()
            if not plan.quiet and "updates" not in self._failed:
                probes = self._watched.each
                probes[position].after_step(plan.full)
                for probe in probes:  # it may have left gradients to the others' parameters
                    probe.unstepped = False
        except Exception as error:
            self._fail("updates", error)
        if position == 0:
            self._numbers.after_skip = False
            if plan.quiet:
                self._watched.each[0].scale = self._scaling.factor
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

    def _finish_step(self, optimizer: Any) -> None:
        numbers, plan = self._numbers, self.plan
        if plan.quiet and not self._landing.pending and not numbers.incomplete:
            numbers.end_quietly(optimizer)
        else:
            if plan.quiet:
                self._watched.each[0].after_step(False)
            if self._passes.have_failed():
                self.forward.forget_pass()
            numbers.end(optimizer, full=plan.full)
        step, self._unseen, self._dropped = self.clock.step, None, False
        if step >= self._refresh_at or (plan.full and self._watched.regrouped):
            self._refresh_at = step + _REFRESH_STEPS
            self._refresh()
        plan.begin(step)

    # ------------------------------------------------------------ stretches of ordinary steps

    @property
    def ordinary(self) -> bool:
        """Whether the extension can do all that is to be done in the coming steps."""
        landing = self._landing
        numbers = self._numbers
        if landing.held is not None or landing.pending or numbers.scalars or numbers.after_skip:
            return False
        if native.load() is None or self.closed or self._failed or self.forward.blind:
            return False
        if self.plan.full and self.forward.deaf:
            return False
        return self.plan.quiet or (numbers.at_hand and self._full_steps_may_be_left())

    def _full_steps_may_be_left(self) -> bool:
        """Whether the coming steps are measured fully, and as the last one."""
        each = self._watched.each
        return (
            len(each) == 1
            and not each[0].late
            and each[0].updates.native
            and self._passes.few
            and self.plan.each_alike
        )

    def hand_over(self, until: int) -> None:
        """Leaves the steps before ``until`` to the extension, where they are :attr:`ordinary`."""
        others, probes = self._numbers.other_groups(), self._watched.probes
        assert probes is not None
        if self.plan.quiet:
            until = min(until, self.schedule.next_full(self.clock.step))
            self._stretches.enter(until, probes.each[0], others)
        else:
            self._stretches.enter_full(until, probes, self._passes.references, others)

    def _leave_stretch(self, *, refused: bool = False) -> None:
        """Takes over from the extension, if steps were left to it."""
        if not self._stretches.open:
            return
        try:
            running = self._stretches.leave(self._watched.each[0], refused=refused)
        except Exception as error:
            self._fail("step", error)
            return
        self._numbers.scalars = {**running.scalars, **self._numbers.scalars}
        for hooks, probe in zip(self._step_hooks[1:], self._watched.each[1:], strict=False):
            if hooks.swept:
                hooks.swept = 0
                probe.on_zero_grad()
        if running.pass_began is not None:
            self._passes.resume(running.pass_began)

    def receive(self) -> None:
        """Hands over the steps whose numbers have arrived; never waits for a device."""
        self._landing.receive()

    def set_every(self, every: int) -> None:
        """Measures every N steps from the next step on; 0 keeps to the budget by itself."""
        self._leave_stretch()
        self.schedule.set_every(every)
        self.plan.begin(self.clock.step)

    def refresh(self) -> None:
        """Follows parameters that were frozen, released, replaced or added."""
        self._leave_stretch()
        self._refresh()

    def gradients_known_bad(self, position: int) -> bool | None:
        """Whether a gradient is non-finite, right before the step; None where nobody looks now."""
        if self._failed or self._watched.remote or not self.plan.full:
            return None
        if position >= len(self._watched.each):
            return None
        if self._stretches.full is not None:
            return self._stretches.full.book.receives_nonfinite()  # type: ignore[no-any-return]
        return self._watched.each[position].receives_nonfinite()

    @property
    def backward_passes(self) -> int:
        """Backward passes that are piled up in the gradients."""
        return self._watched.each[0].passes if self._watched.each else 0

    def _refresh(self) -> None:
        if self._watched.follow():
            self._passes.follow(self.parameters.tensors)
            self._stretches.forget()
            self._listener.on_described()
        self._passes.refer(self.parameters.tensors)

    def _fail(self, probe: str, error: Exception) -> None:
        """Switches a failing probe off; reports it once."""
        if probe in self._failed:
            return
        self._failed.add(probe)
        if probe == "gradients":
            for optimizer_probe in self._watched.each:
                optimizer_probe.sound = False
        self.forward.mark_broken(self._failed)
        self._listener.on_failed(probe, error)
