"""The time machine: holds a bad update back, says where it came from, and can go back.

It sits on the optimizers with hooks of its own, and by :class:`Attempt` on model and loss. While
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
from typing import Any

from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from inspector.capture import native
from inspector.capture.attach import Attachment, ToggledHook
from inspector.capture.nonfinite import Onset
from inspector.capture.uncompiled import never_compiled
from inspector.events import Origin
from inspector.timemachine.attempt import Attempt
from inspector.timemachine.calls import Call
from inspector.timemachine.checks import GradientCheck, has_nonfinite
from inspector.timemachine.found import Found, Listener
from inspector.timemachine.held import Buffers, HeldGradients
from inspector.timemachine.history import History
from inspector.timemachine.late import LateFlags
from inspector.timemachine.loss_graph import born_in_loss
from inspector.timemachine.regained import Usual, regained, usual
from inspector.timemachine.replay import Replay
from inspector.timemachine.search import search
from inspector.timemachine.spells import Spells

_LARGE = 1 << 20  # elements of all parameters, of which none is read more often than need be
_TOLD = 64


def _unknown(_optimizer: Any) -> bool | None:
    return None


class TimeMachine:
    """Attaches at once; :meth:`close` leaves nothing behind.

    Attributes:
        history: what is kept of the past.
        known_bad: whether a gradient of an optimizer is known to be non-finite; None: unknown.
        now: the step that runs.
        charge: is told the nanoseconds that the machine has taken.
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
        self._listener = listener
        self.now: Callable[[], int] = lambda: listener.step
        self.charge: Callable[[int], None] = lambda _ns: None
        extension = native.load()
        self._all_finite: Any = _unknown if extension is None else extension.finite_gradients
        self._model = weakref.ref(model)
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._loss_fn = weakref.ref(loss_fn) if isinstance(loss_fn, nn.Module) else None
        self._check = [GradientCheck() for _ in optimizers]
        self._late = LateFlags()
        self._large = sum(p.numel() for p in model.parameters() if not is_lazy(p)) > _LARGE
        self._glancing = False
        self._glanced: tuple[int, Call] | None = None
        self._usual: Usual | None = None
        self._spent = 0
        self.known_bad: Callable[[int], bool | None] = lambda _position: None
        self._held = HeldGradients()
        self._told: deque[int] = deque(maxlen=_TOLD)
        self._spells = Spells()
        self._buffers = Buffers(model)
        self._in_loss: tuple[int, Origin | None] = (-1, None)  # the step, and where
        self._attempt = Attempt(
            model,
            self.loss_fn,
            self.history,
            self._buffers,
            self._spells,
            now=self.now,
            guarded=self.guarded,
            copy=self._copy,
        )
        self._before: list[Any] = []
        self._attempt.on_bad_loss = self._look_into
        self._after: list[ToggledHook] = []
        self._around = [Attachment() for _ in optimizers]
        self._attach(optimizers)
        self.on_loss = self._attempt.on_loss

    def _attach(self, optimizers: Sequence[Optimizer]) -> None:
        self._before = [partial(self._before_step, at) for at in range(len(optimizers))]
        if len(optimizers) == 1 and not self._large:
            self._before = [self._attempt.keep_logbook(self._before[0])]
        for position, optimizer in enumerate(optimizers):
            self._hang(position, optimizer)

    def _hang(self, position: int, optimizer: Optimizer) -> None:
        before, around = self._before[position], self._around[position]
        hook = around.step_hooks(optimizer, before, self._after_step)
        hook.switch(False)  # most steps end without it
        self._after[position : position + 1] = [hook]

    def follow_optimizer(self, position: int, optimizer: Optimizer) -> None:
        """Another optimizer steps in the place of one; what was copied is of no use for it."""
        if self.closed:
            return
        self._attempt.take_over()
        self._around[position].remove()
        self._optimizers[position] = weakref.ref(optimizer)
        self._check[position] = GradientCheck()
        self._hang(position, optimizer)
        self._late.clear()
        self.history.clear()
        self.history.due = self.now()
        if (logbook := self._attempt.logbook) is not None:
            logbook.book.due = self.history.due

    def close(self) -> None:
        """Removes everything and forgets the past; twice is fine."""
        self.closed = True
        for around in self._around:
            around.remove()
        self._attempt.close()
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
        attempt, several = self._attempt, len(self._optimizers) > 1
        resting = resting and not (glancing and (attempt.parts or several))
        if attempt.survey is not None and attempt.survey.costly:
            resting = resting or self._listener.nonfinite_policy() == "continue"
        at_hand = attempt.logbook is not None and not attempt.parts
        glancing = resting and (glancing or attempt.exact) and at_hand
        if self.closed or (resting, glancing) == (attempt.resting, self._glancing):
            return
        attempt.take_over()
        if resting and (self._spells.last or (attempt.exact and not glancing)):
            return
        if resting:
            kept = self.history.calls
            self._usual = usual(attempt.calls or (kept[-1][1] if kept else []))
        self._glancing = glancing
        self._glanced = attempt.rest(resting, glancing)

    @property
    def witness(self) -> Callable[..., None]:
        """What wants to hear of a recorded loss, and of its value where that is known."""
        return self.startle if self.asleep else self.on_loss

    @never_compiled
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
            self._attempt.step, call = self._glanced
            self._attempt.calls = [call]
        self._glanced = None

    def _regain(self, loss: Tensor, value: float, like: Usual) -> None:
        """Wakes up with the batch that the loss's graph still has, if that explains the loss."""
        if (model := self._model()) is None or (call := regained(loss, like, model)) is None:
            return
        explained = Replay(model, None, {}).run(call) is not None
        if explained or self._search_graph(loss, model, call) is not None:
            self.rest(False)
            self._attempt.step, self._attempt.calls = self.now(), [call]
            self._attempt.take_loss(loss, value)

    def _look_into(self, loss: Tensor) -> None:
        """A loss is not finite: its graph is there until the backward pass."""
        model = self._model()
        if model is None or self._spells.last or self._in_loss[0] == self.now():
            return
        began = perf_counter_ns()
        self._search_graph(loss, model, self._attempt.calls[-1])
        self._spent += perf_counter_ns() - began

    def _search_graph(self, loss: Tensor, model: nn.Module, call: Call) -> Origin | None:
        """Where the loss's own operations have made it non-finite; never raises."""
        born = None
        with contextlib.suppress(Exception):  # whatever copying and calling the model raise
            end = Replay(model, None, self._buffers.before()).end_of(call)
            born = None if end is None else born_in_loss(loss, end, call.batch)
        self._in_loss = self.now(), born
        return born

    def in_loss(self, step: int) -> Origin | None:
        """Where the loss's own operations have made it non-finite, in this step."""
        return self._in_loss[1] if self._in_loss[0] == step else None

    @property
    def asleep(self) -> bool:
        """Whether the losses of the coming steps are of no interest."""
        return self._attempt.resting or self.closed

    def told(self, step: int) -> bool:
        """Whether the non-finite values of a step have been reported."""
        return step in self._told

    def follow(self, pulse: Any) -> None:
        """From now on ``pulse.step`` is the step that runs."""
        self.now = self._attempt.now = partial(getattr, pulse, "step")
        if (logbook := self._attempt.logbook) is not None:
            logbook.book.follow(pulse)

    @property
    def meter(self) -> Callable[[], int] | None:
        """Gives the nanoseconds that ``pulse`` was told of directly, since it was last asked."""
        logbook = self._attempt.logbook
        return None if logbook is None else logbook.spent

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
        if (logbook := self._attempt.logbook) is not None:
            logbook.book.due = self.history.due

    # ------------------------------------------------------------ around optimizer.step()

    @never_compiled
    def _before_step(self, position: int, optimizer: Any, args: Any, kwargs: Any) -> None:
        attempt = self._attempt
        if self.closed or (attempt.resting and not self._glancing):
            return
        if attempt.resting:  # the book has found a gradient that is not finite
            self.guarded(self._wake)
        attempt.entered = None
        attempt.take_over()
        if attempt.has_missed():
            pass
        elif attempt.survey is not None:
            attempt.survey.end_step(self._spent)
        elif attempt.undivided and not attempt.calls:
            self.guarded(attempt.divide)
        loss = attempt.loss
        if type(loss) is float and isfinite(loss) and not self._large:
            started = perf_counter_ns()
            if self._all_finite(optimizer):
                if self._spells.last:
                    self._spells.well(self.now(), position)
                if attempt.hand_over():
                    self._after[0].switch(False)
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
        if bad is None and not self._attempt.on_cuda:
            finite = self._all_finite(optimizer)
            bad = None if finite is None else not finite
        if bad is None:
            bad = self._check[position].start(gradients)
        loss = self._attempt.loss
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
        calls = self._attempt.calls
        seen = 0 if late else len(calls)
        known = known or spells.shared(step, seen, position)
        spells.bad(step, seen, position)
        if found.step != self._attempt.step:
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
            self._attempt.pass_over(over=over)

    def lost(self, step: int, onset: Onset) -> bool:
        """Looks for the origin of what a GradScaler cannot mend; False if nobody was told."""
        model = self._model()
        if self.closed or model is None:
            return False
        self._attempt.take_over()
        found = Found(step, loss=onset.where == "loss", gradient=True)
        found.held, found.onset = True, onset
        self.guarded(self._report, found, self._listener.nonfinite_policy(), model)
        return self.told(step)

    def recovered(self) -> None:
        """A step was made again."""
        self._spells.clear()

    def _hold(self, position: int, optimizer: Optimizer) -> None:
        """Without gradients an optimizer's step changes nothing; they come back afterwards."""
        self._after[position].switch(True, first=True)
        self._held.take(optimizer)

    @never_compiled
    def _after_step(self, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        self._held.give_back()

    @never_compiled
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
