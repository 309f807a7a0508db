"""The step that runs: what the model and the loss were called with, to call them again."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from inspector.capture import native
from inspector.capture.activations import tensors_in
from inspector.capture.attach import Attachment, ToggledHook
from inspector.capture.hooks import on_gradient_of
from inspector.capture.uncompiled import never_compiled
from inspector.capture.wrappers import parts_called
from inspector.timemachine.calls import Call
from inspector.timemachine.held import Buffers
from inspector.timemachine.history import History
from inspector.timemachine.hooks import OnCriterion, OnEnter, OnGradient, OnLeave, OnPartLeave
from inspector.timemachine.logbook import Logbook
from inspector.timemachine.parts import Survey, Toggles, parts_of
from inspector.timemachine.spells import Spells
from inspector.timemachine.state import random_state

_CALLS = 64  # micro-batches of one step that are kept

_any_autocast = torch._C._is_any_autocast_enabled


class Attempt:
    """Listens to the model (or to its parts, where it has no forward to be called) and the loss.

    Attributes:
        step: the step; -1 before the first.
        calls: one for each micro-batch, or for each call of a part.
        loss: what the script has recorded; on a device it is not waited for.
        entered: the call that is being made.
        exact: the recorded loss is what the loss module made of the model's output, so that both
            can be called again; otherwise the gradient at the model's output is kept.
        parts: paths of the parts that are listened to, by ``id``; empty where the model is.
        survey: which parts the script itself calls, where they were found out.
        undivided: the model itself is listened to, and may turn out never to be called.
        resting: the coming steps pass; the state is still copied.
        logbook: writes down ordinary steps; None where none is.
        on_loss: is to be told of every recorded loss: :meth:`take_loss`, or the logbook's.
        on_bad_loss: is called with one that is not finite and that cannot be called again.
        now: gives the number of the step that runs.
        on_cuda: some parameters are there.

    Args:
        guarded: calls a part of the machine, whose error then is its end.
        copy: copies the state before a step.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: nn.Module | None,
        history: History,
        buffers: Buffers,
        spells: Spells,
        *,
        now: Callable[[], int],
        guarded: Callable[..., None],
        copy: Callable[[nn.Module, int], None],
    ) -> None:
        self.step = -1
        self.calls: list[Call] = []
        self.loss: float | Tensor | None = None
        self.entered: Call | None = None
        self.exact = False
        self.resting = self.closed = False
        self._evaluating = True
        self.logbook: Logbook | None = None
        self.on_loss: Callable[..., None] = self.take_loss
        self.on_bad_loss: Callable[[Tensor], None] = lambda _loss: None
        self.now, self.guarded = now, guarded
        entries = parts_called(model)
        self.parts = {} if "" in entries else {id(part): path for path, part in entries.items()}
        self.undivided = not self.parts
        self.survey: Survey | None = None
        self._model = weakref.ref(model)
        self._history, self._buffers, self._spells = history, buffers, spells
        self._copy = copy
        self._attachment = Attachment()
        self._identical: Any = torch.equal
        if (extension := native.load()) is not None:
            self._identical = extension.identical
        self._random: list[Tensor] = []
        self.on_cuda = any(p.is_cuda for p in model.parameters())
        self._autocasts = tuple({"cpu", *(p.device.type for p in model.parameters())} - {"meta"})
        self._enter_hooks: list[ToggledHook] = []
        self._leave_hooks: list[ToggledHook] = []
        self._on_enter, self._on_leave = OnEnter(self), OnLeave(self)
        self._on_part_leave, self._on_criterion = OnPartLeave(self), OnCriterion(self)
        self._gradient = OnGradient(self)
        self._hooks: list[OnEnter | OnLeave | OnPartLeave | OnCriterion | OnGradient] = [
            self._on_enter, self._on_leave, self._on_part_leave, self._on_criterion, self._gradient
        ]  # fmt: skip
        for entry in entries.values():
            with contextlib.suppress(RuntimeError):  # a ScriptModule refuses: holding still works
                hook = self._attachment.forward_pre_hook(entry, self._on_enter)
                self._enter_hooks.append(hook)
                after = self._on_part_leave if self.parts else self._on_leave
                self._leave_hooks.append(self._attachment.forward_hook(entry, after))
        if loss_fn is not None:
            handle = loss_fn.register_forward_hook(self._on_criterion, with_kwargs=True)
            self._attachment.on_remove(handle.remove)

    def keep_logbook(self, before: Callable[..., None]) -> Callable[..., None]:
        """Lets ordinary steps be written down by the extension, where it is there.

        Args:
            before: the hook before the only optimizer's step; what it gives takes its place.
        """
        if self.parts or self.on_cuda or native.load() is None:
            return before
        self.logbook = Logbook(
            enter=self._on_enter.slow,
            leave=self._on_leave.slow,
            criterion=self._on_criterion.slow,
            on_loss=self.take_loss,
            receive=self._gradient.slow,
            before=before,
            now=lambda: self.now(),
            autocast=self._autocast,
            limit=self._history.batch_bytes,
        )
        book = self.logbook.book
        self._on_enter.run, self._on_leave.run = book.enter, book.leave
        self._on_criterion.run, self.on_loss = book.criterion, book.on_loss
        return book.before  # type: ignore[no-any-return]

    def close(self) -> None:
        """Removes the hooks and forgets the calls; twice is fine."""
        self.closed = True
        self._attachment.remove()
        for hook in self._hooks:
            hook.silence()
        self._hooks = []
        if self.logbook is not None:
            self.logbook.book.close()
        self.calls, self.entered, self.loss = [], None, None

    def rest(self, resting: bool, glancing: bool) -> tuple[int, Call] | None:
        """Lets the coming steps pass, or listens again; step and call that were glanced at last.

        Args:
            glancing: the logbook still notes the batch.
        """
        self.resting = resting
        glanced = None
        if self.logbook is not None:
            glanced = self.logbook.rest(resting, glancing, self.exact)
        for hook in self._enter_hooks:
            hook.switch(not resting or glancing)
        for hook in self._leave_hooks:
            hook.switch(not resting and not self.exact)
        if self.survey is not None:
            self.survey.switch(not resting)
        if resting:
            self.entered, self.loss = None, None
        return glanced

    @never_compiled
    def take_loss(self, loss: Any, value: float | None = None) -> None:
        """The step's loss, as the script records it; ``value`` where it is known already."""
        self.take_over()
        if not self.calls:  # it belongs to a step that is over
            return
        if isinstance(loss, Tensor):
            if loss.numel() != 1:
                return
            call = self.calls[-1]
            call.complete = call.loss is not None and call.loss() is loss
            if call.complete is not self.exact and not self.parts:
                self._set_exact(call.complete)
            if value is None:
                self.loss = loss.item() if loss.is_cpu else loss.detach()
            else:
                self.loss = value
            if type(self.loss) is float and not isfinite(self.loss) and not call.complete:
                self.on_bad_loss(loss)
        elif loss is not None:
            self.loss = float(loss)

    def _set_exact(self, exact: bool) -> None:
        self.exact = exact
        for hook in self._leave_hooks:
            hook.switch(not exact)

    @property
    def evaluating(self) -> bool:
        """Whether calls in eval mode count."""
        return self._evaluating if self.logbook is None else bool(self.logbook.book.evaluating)

    @evaluating.setter
    def evaluating(self, on: bool) -> None:
        self._evaluating = on
        if self.logbook is not None:
            self.logbook.book.evaluating = on

    def counts(self, module: nn.Module) -> bool:
        """Whether a call is one of training: in eval mode too, until there is one in the other."""
        if module.training:
            self.evaluating = False
        return module.training or self.evaluating

    def has_missed(self) -> bool:
        """Whether the step was trained in eval mode, unseen: from now on such calls count."""
        model = self._model()
        unseen = self.step != self.now() and not self.evaluating
        if not unseen or model is None or model.training:
            return False
        self.evaluating = True
        return True

    # ------------------------------------------------------------ called by the hooks

    def enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The model, or a part of it, is about to be called in training."""
        step, model = self.now(), self._model()
        if model is None:
            return
        if self.resting:
            if step >= self._history.due:
                self._copy(model, step)
            return
        self.take_over()
        if step != self.step:
            self._turn(model, step)
        if len(self.calls) >= _CALLS:
            return
        if self.parts and self.entered is not None:  # a part that calls another one
            if self.survey is not None:
                self.survey.inner(module)
            return
        call = Call(random_state() if self.on_cuda else self._random_state())
        call.autocast = self._autocast() if _any_autocast() else None
        if not self.calls:
            self._buffers.keep()
        if self.parts:
            call.path = self.parts.get(id(module), "")
            if self.survey is not None:
                self.survey.outer(module)
        call.keep(args, kwargs)
        self.calls.append(call)
        self.entered = call

    def _turn(self, model: nn.Module, step: int) -> None:
        """A new step begins: what belonged to the last one is history."""
        history = self._history
        if self.calls:
            history.add(self.step, self.calls)
        self.calls, self.loss, self.step, self.entered = [], None, step, None
        if step >= history.due and not self._spells.last:
            self._copy(model, step)

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
        self.take_over()
        call, self.entered = self.entered, None
        main = output if isinstance(output, Tensor) else next(tensors_in(output), None)
        if call is not None and main is not None and main.grad_fn is not None:
            call.output = weakref.ref(main)
            on_gradient_of(main, OnGradient(self, call), key=-2)

    def leave_part(self, part: nn.Module, output: Any) -> None:
        """A part was called; another one that has called it goes on."""
        if self.entered is not None and self.entered.path == self.parts.get(id(part)):
            self.leave(output)

    def criterion(self, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        """The loss module was called."""
        self.take_over()
        if not self.calls or not isinstance(result, Tensor):
            return
        self.calls[-1].keep_loss(args, kwargs, result, strict=not self.exact)

    @never_compiled
    def gradient(self, gradient: Tensor, of: weakref.ref[Call] | None) -> None:
        """A gradient has arrived at the output of a call: of the last one, if none is named."""
        call = self.calls[-1] if of is None and self.calls else None if of is None else of()
        if call is not None and not self.exact and not self.closed:
            call.gradient = gradient

    def divide(self) -> None:
        """The model itself was not called in this step: from now on its parts are listened to."""
        self.undivided = False
        model = self._model()
        if model is None or not self._enter_hooks or not (found := parts_of(model)):
            return
        enter, leave = OnEnter(self), OnPartLeave(self)
        self._hooks += [enter, leave]
        toggles: dict[int, Toggles] = {}
        for part in found.values():
            after = self._attachment.forward_hook(part, leave)
            toggles[id(part)] = (self._attachment.forward_pre_hook(part, enter), after)
        self.parts = {id(part): path for path, part in found.items()}
        self.survey = Survey(toggles)
        if self.exact:
            self._set_exact(False)

    # ------------------------------------------------------------ ordinary steps

    def hand_over(self) -> bool:
        """Leaves the coming steps to the logbook; False where they stay here."""
        if self.logbook is None or self._buffers or self.parts or len(self.calls) != 1:
            return False
        history = self._history
        if not self.logbook.begin(history.due, self.exact, history.forget):
            return False
        history.add(self.step, self.calls)
        self.calls, self.entered, self.loss = [], None, None
        return True

    def take_over(self) -> None:
        """Takes the steps back that the logbook holds, if it is open."""
        if self.logbook is None or not self.logbook.book.open:
            return
        calls, running, loss = self.logbook.take()
        last = [calls.pop()] if running else []
        for step, call in calls:
            self._history.add(step, [call])
        for step, call in last:
            self.step, self.calls, self.loss = step, [call], loss
            self.entered = call if call.output is None else None

    def pass_over(self, *, over: bool) -> None:
        """Forgets the batch of a try that has come to nothing; ``over``: the next has not begun."""
        self.take_over()
        self.calls = [] if over else self.calls[-1:]
        self.entered, self.loss = (None, None) if over else (self.entered, self.loss)
