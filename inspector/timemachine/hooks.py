"""The time machine's hooks: inert in copies, and dead once ``machine`` is None."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from inspector.capture.attach import Inert

if TYPE_CHECKING:
    from inspector.timemachine.machine import TimeMachine


_is_compiling = torch.compiler.is_dynamo_compiling
_transforms = torch._C._functorch.peek_interpreter_stack
_graph_task = torch._C._current_graph_task_id


class _Hook(Inert):
    __slots__ = ("machine",)

    def __init__(self, machine: TimeMachine) -> None:
        self.machine: TimeMachine | None = machine


class OnEnter(_Hook):
    """Before the root module's forward, in a training pass."""

    __slots__ = ()

    def __call__(self, module: nn.Module, args: Any, kwargs: Any) -> None:
        machine = self.machine
        if _is_compiling() or machine is None or not module.training:
            return
        if torch.is_grad_enabled() and _ordinary():
            machine.guarded(machine.enter, module, args, kwargs)


class OnLeave(_Hook):
    """After it."""

    __slots__ = ()

    def __call__(self, _module: nn.Module, _args: Any, output: Any) -> None:
        if _is_compiling() or self.machine is None:
            return
        self.machine.guarded(self.machine.leave, output)


class OnCriterion(_Hook):
    """After the loss module's forward."""

    __slots__ = ()

    def __call__(self, _module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if torch.compiler.is_dynamo_compiling() or self.machine is None:
            return
        if torch.is_grad_enabled() and _ordinary():
            self.machine.guarded(self.machine.criterion, args, kwargs, output)


class OnGradient(_Hook):
    """On the root module's output, while the loss cannot be called again."""

    __slots__ = ()

    def __call__(self, gradient: Tensor) -> None:
        if self.machine is not None:
            self.machine.gradient(gradient)


def _ordinary() -> bool:
    """Not inside vmap or grad, and not recomputed by a checkpoint during backward."""
    return _transforms() is None and _graph_task() == -1
