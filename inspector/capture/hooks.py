"""The hook objects that sit on modules and on their outputs."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.capture.attach import Inert
from inspector.capture.modules import ModuleRecord, shapes

if TYPE_CHECKING:
    from inspector.capture.forward import ForwardProbe

_is_compiling = torch.compiler.is_dynamo_compiling


class OutputGradient:
    """A tensor hook that measures the gradient of one module's output; keeps no tensor."""

    __slots__ = ("column", "probe")

    def __init__(self, probe: ForwardProbe, column: int) -> None:
        self.probe: ForwardProbe | None = probe
        self.column = column

    def __call__(self, gradient: Tensor) -> None:
        if self.probe is not None:
            self.probe.on_output_gradient(self.column, gradient)


class ModuleHook(Inert):
    """The forward hook of one module; inert once silenced.

    ``measure`` is the hook's body: a method of the extension's ``Site``, which turns to
    :meth:`slow` for what is not ordinary, or that method itself.
    """

    __slots__ = (
        "_phase",
        "bounds",
        "careful",
        "column",
        "gradient",
        "is_root",
        "measure",
        "probe",
        "record",
        "site",
    )  # fmt: skip

    def __init__(self, probe: ForwardProbe, record: ModuleRecord, *, is_root: bool) -> None:
        self.probe: ForwardProbe | None = probe
        self.record = record
        self.is_root = is_root
        self.bounds: tuple[float, float] | None = None
        self.careful = True
        self.column = -1
        self._phase = -1
        self.gradient: Callable[[Tensor], None] = OutputGradient(probe, -1)
        self.measure: Callable[[Any, Any], None] = self.slow
        self.site: Any = None

    def __call__(self, _module: torch.nn.Module, args: Any, output: Any) -> None:
        if not _is_compiling():
            self.measure(args, output)

    def slow(self, args: Any, output: Any) -> None:
        """Any output of any model, in Python."""
        probe = self.probe
        if probe is not None and torch.is_grad_enabled():
            probe.on_forward(self, args, output)

    def use(self, site: Any) -> None:
        """Hands the ordinary case to the extension."""
        self.site = site
        self.measure = site.measure
        if self.bounds is not None:
            site.low, site.high = self.bounds
            site.bounded = 1

    @property
    def phase(self) -> int:
        """The backward pass before which the module was called last."""
        return self._phase if self.site is None else int(self.site.phase)

    @phase.setter
    def phase(self, phase: int) -> None:
        if self.site is None:
            self._phase = phase
        else:
            self.site.phase = phase

    def take_column(self, column: int) -> None:
        """The module has statistics from now on."""
        self.column = column
        if isinstance(self.gradient, OutputGradient):
            self.gradient.column = column
        if self.site is not None:
            self.site.column = column
            self.gradient = self.site.receive

    def silence(self) -> None:
        """Nothing happens from now on, wherever copies of the hook or its tensor hooks are."""
        self.probe = None
        if isinstance(self.gradient, OutputGradient):
            self.gradient.probe = None
        if self.site is not None:
            self.site.dead = 1


class NamedInputs(Inert):
    """Before forward, while modules are discovered: what a forward hook is not given."""

    __slots__ = ("record",)

    def __init__(self, record: ModuleRecord) -> None:
        self.record = record

    def __call__(self, _module: torch.nn.Module, _args: Any, kwargs: dict[str, Any]) -> None:
        if not _is_compiling():
            self.record.named_inputs = shapes(kwargs)


def on_gradient_of(tensor: Tensor, hook: Callable[[Tensor], None], *, key: int = -1) -> None:
    """``tensor.register_hook(hook)`` without the handle, which costs more than the hook."""
    hooks = tensor._backward_hooks
    if hooks is None:
        tensor._backward_hooks = OrderedDict(((key, hook),))
        tensor.grad_fn._register_hook_dict(tensor)  # type: ignore[union-attr]
    elif key not in hooks:
        hooks[key] = hook
    else:
        tensor.register_hook(hook)  # type: ignore[no-untyped-call]


def transformed() -> bool:
    """Whether vmap, grad or another function transform is running: no values exist then."""
    return torch._C._functorch.peek_interpreter_stack() is not None
