"""The time machine: holds a bad update back, says where it came from, and can go back.

It sits on the root module (or on its parts, where it has no forward to be called), the loss module
and the optimizers with hooks of its own. While
nothing is wrong it keeps references to the batch, copies small buffers, and asks one question
before each step: is everything finite?
"""

from __future__ import annotations

import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from math import isfinite
from time import perf_counter_ns
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from inspector.capture import native
from inspector.capture.activations import tensors_in
from inspector.capture.attach import Attachment, ToggledHook
from inspector.capture.hooks import on_gradient_of
from inspector.capture.nonfinite import Onset
from inspector.capture.wrappers import parts_called
from inspector.events import Origin
from inspector.timemachine.calls import Call
from inspector.timemachine.checks import GradientCheck, has_nonfinite
from inspector.timemachine.held import Buffers, HeldGradients
from inspector.timemachine.history import History
from inspector.timemachine.hooks import OnCriterion, OnEnter, OnGradient, OnLeave, OnPartLeave
from inspector.timemachine.late import LateFlags
from inspector.timemachine.logbook import Logbook
from inspector.timemachine.parts import Survey, Toggles, parts_of
from inspector.timemachine.regained import Usual, regained, usual
from inspector.timemachine.replay import Replay
from inspector.timemachine.search import search
from inspector.timemachine.spells import Spells
from inspector.timemachine.state import random_state

_LARGE = 1 << 20  # elements of all parameters, of which none is read more often than need be
_TOLD = 64
_CALLS = 64  # micro-batches of one step that are kept


_any_autocast = torch._C._is_any_autocast_enabled


def _unknown(_optimizer: Any) -> bool | None:
    return None


class Listener(Protocol):
    """Who is told, and who decides."""

    @property
    def step(self) -> int:
        """The step that runs now."""

    def nonfinite_policy(self) -> str:
        """``pause``, ``skip`` or ``continue``."""

    def on_nonfinite(self, step: int, origin: Origin, found: Found) -> None:
        """Something is not finite, and this is where it comes from."""

    def on_rewound(self, to_step: int, reason: str) -> None:
        """The state is that of an earlier step."""

    def on_failed(self, probe: str, error: Exception) -> None:
        """The machine itself has raised and is off from now on."""


class Found:
    """A step with something non-finite in it.

    Attributes:
        position: which optimizer was to make it.
        loss: whether the loss was; gradient: whether a gradient was.
        held: the update was not made.
        again: a spell goes on, this one's or another optimizer's.
        call: the batch it happened with; None if it is not known.
        onset: where it was seen, if it was looked for.
        buffers: the buffers before the forward pass.
    """

    def __init__(self, step: int, position: int = 0, *, loss: bool, gradient: bool) -> None:
        self.step = step
        self.position = position
        self.loss = loss
        self.gradient = gradient
        self.held = False
        self.again = False
        self.call: Call | None = None
        self.onset: Onset | None = None
        self.buffers: dict[str, Tensor] = {}


class TimeMachine:
    """Attaches at once; :meth:`close` leaves nothing behind.

    Attributes:
        history: what is kept of the past.
        known_bad: whether a gradient of an optimizer is known to be non-finite; None: unknown.
        now: the step that runs.
        charge: is told the nanoseconds that the machine has taken.
        exact: the recorded loss is what the loss module made of the model's output, so that both
            can be called again; otherwise the gradient at the model's output is kept.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        listener: Listener,
        *,
        loss_fn: Any = None,
        history: History | None = None,
    ) -> None:
        self.history = history or History()
        self.closed = False
        self.exact = False
        self._listener = listener
        self.now: Callable[[], int] = lambda: listener.step
        self.charge: Callable[[int], None] = lambda _ns: None
        extension = native.load()
        self._all_finite: Any = _unknown if extension is None else extension.finite_gradients
        self._identical: Any = torch.equal if extension is None else extension.identical
        self._random: list[Tensor] = []
        self._model = weakref.ref(model)
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._loss_fn = weakref.ref(loss_fn) if isinstance(loss_fn, nn.Module) else None
        self._attachment = Attachment()
        self._check = [GradientCheck() for _ in optimizers]
        self._late = LateFlags()
        self._calls: list[Call] = []
        self._entered: Call | None = None
        self._step = -1
        self._large = sum(p.numel() for p in model.parameters() if not is_lazy(p)) > _LARGE
        self._on_cuda = any(p.is_cuda for p in model.parameters())
        self._autocasts = tuple({"cpu", *(p.device.type for p in model.parameters())} - {"meta"})
        entries = parts_called(model)
        self._parts = {} if "" in entries else {id(part): path for path, part in entries.items()}
        self._undivided = not self._parts
        self._survey: Survey | None = None
        self._enter: list[ToggledHook] = []
        self._leave: list[ToggledHook] = []
        self._resting = self._glancing = False
        self._glanced: tuple[int, Call] | None = None
        self._usual: Usual | None = None
        self._spent = 0
        self.known_bad: Callable[[int], bool | None] = lambda _position: None
        self._loss: float | Tensor | None = None
        self._held = HeldGradients()
        self._told: deque[int] = deque(maxlen=_TOLD)
        self._spells = Spells()
        self._buffers = Buffers(model)
        self._hooks: list[OnEnter | OnLeave | OnPartLeave | OnCriterion | OnGradient] = []
        self._gradient = OnGradient(self)
        self.on_loss: Callable[..., None] = self._on_loss
        self._logbook: Logbook | None = None
        self._after: list[ToggledHook] = []
        self._attach(list(entries.values()), optimizers)

    def _attach(self, entries: Sequence[nn.Module], optimizers: Sequence[Optimizer]) -> None:
        enter, leave, criterion = OnEnter(self), OnLeave(self), OnCriterion(self)
        part_leave = OnPartLeave(self)
        self._hooks = [enter, leave, part_leave, criterion, self._gradient]
        before: list[Any] = [partial(self._before_step, at) for at in range(len(optimizers))]
        ordinary = len(optimizers) == 1 and not (self._parts or self._large or self._on_cuda)
        if ordinary and native.load():
            self._logbook = Logbook(
                enter=enter.slow,
                leave=leave.slow,
                criterion=criterion.slow,
                on_loss=self._on_loss,
                receive=self._gradient.slow,
                before=before[0],
                now=lambda: self.now(),
                autocast=self._autocast,
                limit=self.history.batch_bytes,
            )
            book = self._logbook.book
            enter.run, leave.run, criterion.run = book.enter, book.leave, book.criterion
            self.on_loss, before = book.on_loss, [book.before]
        for entry in entries:
            with contextlib.suppress(RuntimeError):  # a ScriptModule refuses: holding still works
                self._enter.append(self._attachment.forward_pre_hook(entry, enter))
                after = part_leave if self._parts else leave
                self._leave.append(self._attachment.forward_hook(entry, after))
        if (loss_fn := self.loss_fn) is not None:
            handle = loss_fn.register_forward_hook(criterion, with_kwargs=True)
            self._attachment.on_remove(handle.remove)
        for optimizer, hook in zip(optimizers, before, strict=True):
            self._after.append(self._attachment.step_hooks(optimizer, hook, self._after_step))
            self._after[-1].switch(False)  # most steps end without it

    def close(self) -> None:
        """Removes everything and forgets the past; twice is fine."""
        self.closed = True
        self._attachment.remove()
        for hook in self._hooks:
            hook.silence()
        self._hooks = []
        if self._logbook is not None:
            self._logbook.book.close()
        self._calls, self._entered, self._loss = [], None, None
        self._buffers.forget()
        self.history.clear()
        self._loss_fn = None

    def rest(self, resting: bool, *, glancing: bool = False) -> None:
        """Lets the coming steps pass, or wakes up.

        For steps so short that more would cost more than watching may. ``glancing``, and where the
        loss can be called again, the machine still notes the batch, asks whether gradients are
        finite, and copies the state. With several optimizers, or where parts of the model are
        called one by one, it stays awake for that.
        """
        resting = resting and not (glancing and (self._parts or len(self._optimizers) > 1))
        if self._survey is not None and self._survey.costly:
            resting = resting or self._listener.nonfinite_policy() == "continue"
        glancing = resting and (glancing or self.exact) and self._logbook is not None
        glancing = glancing and not self._parts
        if self.closed or (resting, glancing) == (self._resting, self._glancing):
            return
        self._take_over()
        if resting and (self._spells.last or (self.exact and not glancing)):
            return
        if resting:
            calls = self._calls or (self.history.calls[-1][1] if self.history.calls else [])
            self._usual = usual(calls)
        self._resting, self._glancing = resting, glancing
        if self._logbook is not None:
            self._glanced = self._logbook.rest(resting, glancing, self.exact)
        for hook in self._enter:
            hook.switch(not resting or glancing)
        for hook in self._leave:
            hook.switch(not resting and not self.exact)
        if self._survey is not None:
            self._survey.switch(not resting)
        if resting:
            self._entered, self._loss = None, None

    @property
    def witness(self) -> Callable[..., None]:
        """What wants to hear of a recorded loss, and of its value where that is known."""
        return self.startle if self.asleep else self.on_loss

    def startle(self, loss: Any, value: float | None = None) -> None:
        """In a step that was to pass unseen, the loss may be not finite."""
        if self.closed or value is None or isfinite(value):
            return
        if self._glancing:
            self.guarded(self._wake)
            self.on_loss(loss, value)
        elif self._usual is not None and isinstance(loss, Tensor):
            self.guarded(self._regain, loss, value, self._usual)

    def _wake(self) -> None:
        """Goes on from what was glanced at: weights and batch of this step are still there."""
        self.rest(False)
        if self._glanced is not None and self._glanced[0] == self.now():
            self._step, call = self._glanced
            self._calls = [call]
        self._glanced = None

    def _regain(self, loss: Tensor, value: float, like: Usual) -> None:
        """Wakes up with the batch that the loss's graph still has, if that explains the loss."""
        if (model := self._model()) is None or (call := regained(loss, like, model)) is None:
            return
        if Replay(model, None, {}).run(call) is not None:
            self.rest(False)
            self._step, self._calls = self.now(), [call]
            self._on_loss(loss, value)

    @property
    def asleep(self) -> bool:
        """Whether the losses of the coming steps are of no interest."""
        return self._resting or self.closed

    def told(self, step: int) -> bool:
        """Whether the non-finite values of a step have been reported."""
        return step in self._told

    def follow(self, pulse: Any) -> None:
        """From now on ``pulse.step`` is the step that runs."""
        self.now = partial(getattr, pulse, "step")
        if self._logbook is not None:
            self._logbook.book.follow(pulse)

    @property
    def meter(self) -> Callable[[], int] | None:
        """Gives the nanoseconds that ``pulse`` was told of directly, since it was last asked."""
        return None if self._logbook is None else self._logbook.spent

    def _on_loss(self, loss: Any, value: float | None = None) -> None:
        """The step's loss, as the script records it; ``value`` where it is known already."""
        self._take_over()
        if not self._calls:  # it belongs to a step that is over
            return
        if isinstance(loss, Tensor):
            if loss.numel() != 1:
                return
            call = self._calls[-1]
            call.complete = call.loss is not None and call.loss() is loss
            if call.complete is not self.exact and not self._parts:
                self.exact = call.complete
                for hook in self._leave:
                    hook.switch(not self.exact)
            if value is None:
                self._loss = loss.item() if loss.is_cpu else loss.detach()
            else:
                self._loss = value
        elif loss is not None:
            self._loss = float(loss)

    def keep(self, beside: Callable[[], Any]) -> None:
        """Between two steps, before batches are drawn: copies the state if that is due.

        Args:
            beside: gives what the loop needs beside it to go on from there.
        """
        if self.closed or self._spells.last or self.now() < self.history.due:
            return
        if (model := self._model()) is not None:
            self.guarded(self._copy, model, self.now(), beside)

    def _copy(self, model: nn.Module, step: int, beside: Callable[[], Any] | None = None) -> None:
        self.history.copy(model, self.optimizers(), step, beside)
        self._buffers.find(model)
        if self._logbook is not None:
            self._logbook.book.due = self.history.due

    # ------------------------------------------------------------ called by the hooks

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The model, or a part of it, is about to be called in training."""
        step, model = self.now(), self._model()
        if model is None:
            return
        if self._resting:
            if step >= self.history.due:
                self._copy(model, step)
            return
        self._take_over()
        if step != self._step:
            self._turn(model, step)
        if len(self._calls) >= _CALLS:
            return
        if self._parts and self._entered is not None:  # a part that calls another one
            if self._survey is not None:
                self._survey.inner(module)
            return
        call = Call(random_state() if self._on_cuda else self._random_state())
        call.autocast = self._autocast() if _any_autocast() else None
        if not self._calls:
            self._buffers.keep()
        if self._parts:
            call.path = self._parts.get(id(module), "")
            if self._survey is not None:
                self._survey.outer(module)
        call.keep(args, kwargs)
        self._calls.append(call)
        self._entered = call

    def _autocast(self) -> tuple[str, torch.dtype] | None:
        """The device and type that operations are cast for, where they are."""
        for device in self._autocasts:
            if torch.is_autocast_enabled(device):
                return device, torch.get_autocast_dtype(device)
        return None

    def _random_state(self) -> list[Tensor]:
        """The CPU's generator's state; the same tensors again while nobody draws numbers.

        It is asked for directly, since :func:`random_state` costs four times that.
        """
        state = torch.default_generator.get_state()
        if not self._random or not self._identical(self._random[0], state):
            self._random = [state]
        return self._random

    def leave(self, output: Any) -> None:
        """The model was called; asked for only while the loss cannot be called again."""
        self._take_over()
        call, self._entered = self._entered, None
        main = output if isinstance(output, Tensor) else next(tensors_in(output), None)
        if call is not None and main is not None and main.grad_fn is not None:
            call.output = weakref.ref(main)
            on_gradient_of(main, OnGradient(self, call), key=-2)

    def leave_part(self, part: nn.Module, output: Any) -> None:
        """A part was called; another one that has called it goes on."""
        if self._entered is not None and self._entered.path == self._parts.get(id(part)):
            self.leave(output)

    def _divide(self) -> None:
        """The model itself was not called in this step: from now on its parts are listened to."""
        self._undivided = False
        if (model := self._model()) is None or not self._enter or not (found := parts_of(model)):
            return
        enter, leave = OnEnter(self), OnPartLeave(self)
        self._hooks += [enter, leave]
        toggles: dict[int, Toggles] = {}
        for part in found.values():
            after = self._attachment.forward_hook(part, leave)
            toggles[id(part)] = (self._attachment.forward_pre_hook(part, enter), after)
        self._parts = {id(part): path for path, part in found.items()}
        self._survey = Survey(toggles)
        if self.exact:
            self.exact = False
            for hook in self._leave:
                hook.switch(True)

    def _turn(self, model: nn.Module, step: int) -> None:
        """A new step begins: what belonged to the last one is history."""
        history = self.history
        if self._calls:
            history.add(self._step, self._calls)
        self._calls, self._loss, self._step, self._entered = [], None, step, None
        if step >= history.due and not self._spells.last:
            self._copy(model, step)

    def criterion(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """The loss module was called."""
        self._take_over()
        if not self._calls or not isinstance(result, Tensor):
            return
        self._calls[-1].keep_loss(args, kwargs, result, strict=not self.exact)

    def gradient(self, gradient: Tensor, of: weakref.ref[Call] | None) -> None:
        """A gradient has arrived at the output of a call: of the last one, if none is named."""
        call = self._calls[-1] if of is None and self._calls else None if of is None else of()
        if call is not None and not self.exact and not self.closed:
            call.gradient = gradient

    # ------------------------------------------------------------ ordinary steps

    def _hand_over(self) -> None:
        """Leaves the coming steps to the logbook."""
        if self._logbook is None or self._buffers or self._parts or len(self._calls) != 1:
            return
        history = self.history
        if self._logbook.begin(history.due, self.exact, history.forget):
            history.add(self._step, self._calls)
            self._calls, self._entered, self._loss = [], None, None
            self._after[0].switch(False)

    def _take_over(self) -> None:
        """Takes the steps back that the logbook holds, if it is open."""
        if self._logbook is None or not self._logbook.book.open:
            return
        calls, running, loss = self._logbook.take()
        last = [calls.pop()] if running else []
        for step, call in calls:
            self.history.add(step, [call])
        for step, call in last:
            self._step, self._calls, self._loss = step, [call], loss
            self._entered = call if call.output is None else None

    # ------------------------------------------------------------ around optimizer.step()

    def _before_step(self, position: int, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self.closed or (self._resting and not self._glancing):
            return
        if self._resting:  # the book has found a gradient that is not finite
            self.guarded(self._wake)
        self._entered = None
        self._take_over()
        if self._survey is not None:
            self._survey.end_step(self._spent)
        elif self._undivided and not self._calls:
            self.guarded(self._divide)
        loss = self._loss
        if type(loss) is float and isfinite(loss) and not self._large:
            started = perf_counter_ns()
            if self._all_finite(optimizer):
                if self._spells.last:
                    self._spells.well(self.now(), position)
                self._hand_over()
                self.charge(perf_counter_ns() - started + self._spent)
                self._spent = 0
                return
        self.guarded(self._examine, position, optimizer, args, kwargs)
        self.charge(self._spent)
        self._spent = 0

    def _examine(self, position: int, optimizer: Any, args: Any, kwargs: Any) -> None:
        if len(args) > 1 or kwargs.get("closure") is not None:
            return  # the step itself computes the gradients
        if getattr(optimizer, "found_inf", None) is not None:
            return  # GradScaler skips such steps by itself
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"]
            if p.grad is not None
        ]  # fmt: skip
        bad: Tensor | bool | None = self.known_bad(position)
        if bad is None and not self._on_cuda:
            finite = self._all_finite(optimizer)
            bad = None if finite is None else not finite
        if bad is None:
            bad = self._check[position].start(gradients)
        loss = self._loss
        step = self._listener.step
        if isinstance(bad, Tensor) or isinstance(loss, Tensor):
            self._late.add(step, position, bad, loss)
            for then, whose, ill in self._late.arrived():
                if not ill:
                    self._spells.well(then, whose)
                elif then in self._told:
                    self._spells.bad(then, 0, whose)
                else:
                    found = Found(then, whose, loss=False, gradient=True)
                    self._handle(found, position, optimizer, late=True)
            return
        bad_loss = loss is not None and not isfinite(loss)
        if bad or bad_loss:
            found = Found(step, position, loss=bad_loss, gradient=bool(bad))
            self._handle(found, position, optimizer)
        elif self._spells.last:
            self._spells.well(step, position)

    def _handle(
        self, found: Found, position: int, optimizer: Optimizer, *, late: bool = False
    ) -> None:
        """Holds the update back and reports; once per spell, unless a person decides each time."""
        policy = self._listener.nonfinite_policy()
        model = self._model()
        if model is None:
            return
        if policy != "continue":
            self._hold(position, optimizer)
            found.held = True
        self._report(found, policy, model, late=late)

    def _report(self, found: Found, policy: str, model: nn.Module, *, late: bool = False) -> None:
        spells, step, position = self._spells, found.step, found.position
        self._told.append(step)
        found.again = bool(spells.last)
        known = policy != "pause" and spells.known(position, spreads=policy == "continue")
        seen = 0 if late else len(self._calls)
        known = known or spells.shared(step, seen, position)
        spells.bad(step, seen, position)
        calls = self._calls
        if found.step != self._step:
            calls = next((c for s, c in self.history.calls if s == found.step), [])
        spoilt = late or has_nonfinite(p for p in model.parameters())
        if not known:
            found.buffers = self._buffers.before()
            origin, found.call = search(self, model, found, calls, late=late)
            self._listener.on_nonfinite(found.step, origin, found)
        if policy == "continue":
            return
        self._buffers.undo()
        if spoilt:
            self.rewind("nonfinite", before=found.step)

    # ------------------------------------------------------------ steps that a GradScaler skips

    def pass_over(self, *, over: bool) -> None:
        """Forgets the batch of a try that has come to nothing; ``over``: the next has not begun."""
        if not self.closed:
            self._take_over()
            self._calls = [] if over else self._calls[-1:]
            self._entered, self._loss = (None, None) if over else (self._entered, self._loss)

    def lost(self, step: int, onset: Onset) -> bool:
        """Looks for the origin of what a GradScaler cannot mend; False if nobody was told."""
        model = self._model()
        if self.closed or model is None:
            return False
        self._take_over()
        found = Found(step, loss=onset.where == "loss", gradient=True)
        found.held, found.onset = True, onset
        self.guarded(self._report, found, self._listener.nonfinite_policy(), model)
        return self.told(step)

    def recovered(self) -> None:
        """A step was made again."""
        self._spells = Spells()

    def _hold(self, position: int, optimizer: Optimizer) -> None:
        """Without gradients an optimizer's step changes nothing; they come back afterwards."""
        self._after[position].switch(True, first=True)
        self._held.take(optimizer)

    def _after_step(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._held.give_back()

    def guarded(self, part: Callable[..., None], *args: Any) -> None:
        """Calls a part of the machine; its error ends the machine, never the training."""
        started = perf_counter_ns()
        try:
            part(*args)
        except Exception as error:
            self._fail(error)
        self._spent += perf_counter_ns() - started

    def _fail(self, error: Exception) -> None:
        self.close()
        self._listener.on_failed("time machine", error)

    # ------------------------------------------------------------ going back

    def optimizers(self) -> list[Optimizer]:
        """The optimizers, as long as all of them live; else none."""
        found = [reference() for reference in self._optimizers]
        return [o for o in found if o is not None] if all(o is not None for o in found) else []

    @property
    def loss_fn(self) -> nn.Module | None:
        """The loss module, if there is one to call again."""
        return None if self._loss_fn is None else self._loss_fn()

    def rewind(self, reason: str = "command", before: int | None = None) -> int | None:
        """Puts the state back to the newest good copy; None when there is none.

        On a command it is the oldest one, to get well away from what went wrong.
        """
        history = self.history
        slot = history.oldest_good() if before is None else history.newest_good(before)
        model, optimizers = self._model(), self.optimizers()
        if slot is None or model is None or not slot.restore(model, optimizers):
            return None
        self._late.clear()
        self._listener.on_rewound(slot.step, reason)
        return slot.step
