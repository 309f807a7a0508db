"""The time machine's hooks: inert in copies, and dead once ``attempt`` is None."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inspector.capture.attach import Inert
from inspector.timemachine.calls import Call

if TYPE_CHECKING:
    from inspector.timemachine.attempt import Attempt


_is_compiling = torch.compiler.is_dynamo_compiling
_transforms = torch._C._functorch.peek_interpreter_stack
_graph_task = torch._C._current_graph_task_id


class _Hook(Inert):
    """``run`` is the hook's body: :meth:`slow`, or the logbook's, which turns to it."""

    __slots__ = ("attempt", "run")

    def __init__(self, attempt: Attempt) -> None:
        self.attempt: Attempt | None = attempt
        self.run: Callable[..., None] = self.slow

    def slow(self, *args: Any) -> None:
        raise NotImplementedError

    def silence(self) -> None:
        """Nothing happens from now on."""
        self.attempt = None
        self.run = self.slow


class OnEnter(_Hook):
    """Before the root module's forward, in a training pass."""

    __slots__ = ()

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not _is_compiling():
            self.run(module, args, kwargs)

    def slow(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        """Any call of any model."""
        attempt = self.attempt
        if attempt is None or not torch.is_grad_enabled() or not _ordinary():
            return
        if attempt.counts(module):
            attempt.guarded(attempt.enter, module, args, kwargs)


class OnLeave(_Hook):
    """After it."""

    __slots__ = ()

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> None:
        if not _is_compiling():
            self.run(output)

    def slow(self, output: Any) -> None:
        """Any output."""
        if self.attempt is not None:
            self.attempt.guarded(self.attempt.leave, output)


class OnPartLeave(_Hook):
    """After the forward of a part, which another part may have called."""

    __slots__ = ()

    def __call__(self, module: nn.Module, _args: Any, output: Any) -> None:
        if not _is_compiling():
            self.slow(module, output)

    def slow(self, module: nn.Module, output: Any) -> None:
        """Any output of any part."""
        if self.attempt is not None:
            self.attempt.guarded(self.attempt.leave_part, module, output)


class OnCriterion(_Hook):
    """After the loss module's forward."""

    __slots__ = ()

    def __call__(self, _module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if not _is_compiling():
            self.run(args, kwargs, output)

    def slow(self, args: Any, kwargs: Any, output: Any) -> None:
        """Any call of any loss."""
        attempt = self.attempt
        if attempt is not None and torch.is_grad_enabled() and _ordinary():
            attempt.guarded(attempt.criterion, args, kwargs, output)


class OnGradient(_Hook):
    """On the root module's output, while the loss cannot be called again."""

    __slots__ = ("call",)

    def __init__(self, attempt: Attempt, call: Call | None = None) -> None:
        super().__init__(attempt)
        self.call = None if call is None else weakref.ref(call)

    def __call__(self, gradient: Tensor) -> None:
        self.slow(gradient)

    def slow(self, gradient: Tensor) -> None:
        """The gradient of a step that the logbook does not hold."""
        if self.attempt is not None:
            self.attempt.gradient(gradient, self.call)


def _ordinary() -> bool:
    """Not inside vmap or grad, and not recomputed by a checkpoint during backward."""
    return _transforms() is None and _graph_task() == -1
