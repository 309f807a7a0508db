"""The time machine: holds a bad update back, says where it came from, and can go back.

It sits on the root module, the loss module and the optimizers with hooks of its own. While
nothing is wrong it keeps references to the batch, copies small buffers, and asks one question
before each step: is everything finite?
"""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from inspector.capture.activations import tensors_in
from inspector.capture.attach import Attachment
from inspector.events import Origin
from inspector.timemachine.calls import OUTPUT, Call
from inspector.timemachine.checks import GradientCheck, has_nonfinite
from inspector.timemachine.history import History
from inspector.timemachine.hooks import OnCriterion, OnEnter, OnGradient, OnLeave
from inspector.timemachine.late import LateFlags
from inspector.timemachine.search import search
from inspector.timemachine.state import random_state

_TOLD = 64
_CALLS = 64  # micro-batches of one step that are kept


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
        loss: whether the loss was; gradient: whether a gradient was.
        held: the update was not made.
        again: the step before was bad too.
        call: the batch it happened with; None if it is not known.
        buffers: the buffers before the forward pass.
    """

    def __init__(self, step: int, *, loss: bool, gradient: bool) -> None:
        self.step = step
        self.loss = loss
        self.gradient = gradient
        self.held = False
        self.again = False
        self.call: Call | None = None
        self.buffers: dict[str, Tensor] = {}


class TimeMachine:
    """Attaches at once; :meth:`close` leaves nothing behind.

    Attributes:
        history: what is kept of the past.
        exact: whether the loss can be computed again, so that a replay covers the whole step.
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
        self._model = weakref.ref(model)
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._loss_fn = weakref.ref(loss_fn) if isinstance(loss_fn, nn.Module) else None
        self._attachment = Attachment()
        self._check = [GradientCheck() for _ in optimizers]
        self._late = LateFlags()
        self._calls: list[Call] = []
        self._entered: Call | None = None
        self._loss: float | Tensor | None = None
        self._stash: list[tuple[Tensor, Tensor]] = []
        self._told: deque[int] = deque(maxlen=_TOLD)
        self._ill = False
        self._buffers: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._hooks: list[OnEnter | OnLeave | OnCriterion | OnGradient] = []
        self._gradient = OnGradient(self)
        self._attach(model, optimizers)

    def _attach(self, model: nn.Module, optimizers: Sequence[Optimizer]) -> None:
        enter, leave = OnEnter(self), OnLeave(self)
        self._hooks = [enter, leave, self._gradient]
        try:
            handles = [
                model.register_forward_pre_hook(enter),
                model.register_forward_hook(leave, with_kwargs=True),
            ]
        except RuntimeError:  # a ScriptModule refuses: held back is still possible
            handles = []
        if (loss_fn := self.loss_fn) is not None:
            criterion = OnCriterion(self)
            self._hooks.append(criterion)
            handles.append(loss_fn.register_forward_hook(criterion, with_kwargs=True))
        for handle in handles:
            self._attachment.on_remove(handle.remove)
        for position, optimizer in enumerate(optimizers):
            self._attachment.step_hooks(
                optimizer, partial(self._before_step, position), partial(self._after_step, position)
            )

    def close(self) -> None:
        """Removes everything and forgets the past; twice is fine."""
        self.closed = True
        self._attachment.remove()
        for hook in self._hooks:
            hook.machine = None
        self._hooks = []
        self._calls, self._entered, self._loss = [], None, None
        self._buffers, self._copies = [], []
        self.history.clear()
        self._loss_fn = None

    def told(self, step: int) -> bool:
        """Whether the non-finite values of a step have been reported."""
        return step in self._told

    def on_loss(self, loss: Any) -> None:
        """The step's loss, as the script records it."""
        if not self._calls:  # it belongs to a step that is over
            return
        if isinstance(loss, Tensor):
            if loss.numel() != 1:
                return
            call = self._calls[-1]
            self.exact = call.complete = call.loss is not None and call.loss() is loss
            self._loss = loss.item() if loss.is_cpu else loss.detach()
        elif loss is not None:
            self._loss = float(loss)

    # ------------------------------------------------------------ called by the hooks

    def enter(self, model: nn.Module) -> None:
        """The model is about to be called in training."""
        call = Call(random=random_state())
        for device in ("cuda", "cpu"):
            if torch.is_autocast_enabled(device):
                call.autocast = device, torch.get_autocast_dtype(device)
                break
        if not self._calls:
            self._keep_buffers(model)
        self._entered = call

    def leave(self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        """The model was called."""
        call, self._entered = self._entered, None
        if call is None or len(self._calls) >= _CALLS:
            return
        call.keep(args, kwargs)
        main = output if isinstance(output, Tensor) else next(tensors_in(output), None)
        if main is not None:
            call.output = weakref.ref(main)
            if not self.exact and main.grad_fn is not None:
                main.register_hook(self._gradient)  # type: ignore[no-untyped-call]
        self._calls.append(call)

    def criterion(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """The loss module was called."""
        if not self._calls or not isinstance(result, Tensor):
            return
        call = self._calls[-1]
        output = call.output() if call.output is not None else None
        if output is None:
            return
        given = tuple(OUTPUT if value is output else value for value in args)
        named = {key: OUTPUT if value is output else value for key, value in kwargs.items()}
        if any(tensor.requires_grad for tensor in tensors_in((given, named))):
            return  # the output went through something before: that cannot be called again
        call.keep_loss(given, named, result)

    def gradient(self, gradient: Tensor) -> None:
        """A gradient has arrived at the model's output."""
        if self._calls and not self.exact:
            self._calls[-1].gradient = gradient

    def _keep_buffers(self, model: nn.Module) -> None:
        buffers = [b.detach() for b in model.buffers()]
        if not buffers:
            self._copies = []
            return
        with torch.no_grad():
            same = len(buffers) == len(self._copies) and all(
                a.shape == b.shape and a.dtype is b.dtype and a.device == b.device
                for a, b in zip(buffers, self._copies, strict=True)
            )
            if same:
                torch._foreach_copy_(self._copies, buffers)
            else:
                self._copies = [b.clone() for b in buffers]

    # ------------------------------------------------------------ around optimizer.step()

    def _before_step(self, position: int, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self.closed:
            return
        try:
            self._examine(position, optimizer, args, kwargs)
        except Exception as error:
            self._fail(error)

    def _examine(self, position: int, optimizer: Any, args: Any, kwargs: Any) -> None:
        if len(args) > 1 or kwargs.get("closure") is not None:
            return  # the step itself computes the gradients
        if getattr(optimizer, "found_inf", None) is not None:
            return  # GradScaler skips such steps by itself
        gradients = [
            p.grad for group in optimizer.param_groups for p in group["params"]
            if p.grad is not None
        ]  # fmt: skip
        bad = self._check[position].start(gradients)
        loss = self._loss
        step = self._listener.step
        if isinstance(bad, Tensor) or isinstance(loss, Tensor):
            self._late.add(step, bad, loss)
            late = self._late.first_bad()
            if late is not None and late not in self._told:
                self._handle(Found(late, loss=False, gradient=True), None, late=True)
            return
        bad_loss = loss is not None and not math.isfinite(loss)
        if bad or bad_loss:
            self._handle(Found(step, loss=bad_loss, gradient=bad), optimizer)
        elif position == 0:
            self._ill = False

    def _handle(self, found: Found, optimizer: Optimizer | None, *, late: bool = False) -> None:
        """Holds the update back and reports; once per spell, unless a person decides each time."""
        policy = self._listener.nonfinite_policy()
        model = self._model()
        if model is None:
            return
        if optimizer is not None and policy != "continue":
            self._hold(optimizer)
            found.held = True
        self._told.append(found.step)
        found.again = self._ill
        known = self._ill and policy != "pause"
        self._ill = True
        calls = next((c for s, c in self.history.calls if s == found.step), []) if late else []
        calls = calls or self._calls
        spoilt = late or has_nonfinite(p for p in model.parameters())
        if not known:
            names = [name for name, _ in model.named_buffers()]
            if len(names) == len(self._copies):
                found.buffers = dict(zip(names, self._copies, strict=True))
            origin, found.call = search(self, model, found, calls, late=late)
            self._listener.on_nonfinite(found.step, origin, found)
        if policy == "continue":
            return
        self._undo_buffers(model)
        if spoilt:
            self.rewind("nonfinite", before=found.step)

    def _hold(self, optimizer: Optimizer) -> None:
        """Without gradients an optimizer's step changes nothing; they come back afterwards."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._stash.append((parameter, parameter.grad))
                    parameter.grad = None

    def _undo_buffers(self, model: nn.Module) -> None:
        buffers = [b.detach() for b in model.buffers()]
        if buffers and len(buffers) == len(self._copies):
            with torch.no_grad():
                torch._foreach_copy_(buffers, self._copies)

    def _after_step(self, position: int, _optimizer: Any, _args: Any, _kwargs: Any) -> None:
        for parameter, gradient in self._stash:
            parameter.grad = gradient
        self._stash = []
        if position or self.closed:
            return
        try:
            self._end_step()
        except Exception as error:
            self._fail(error)

    def _end_step(self) -> None:
        step = self._listener.step
        self.history.add(step, self._calls)
        self._calls, self._loss = [], None
        model, optimizers = self._model(), self.optimizers()
        if model is not None and optimizers and not self._ill:
            self.history.at_boundary(model, optimizers, step + 1)

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
