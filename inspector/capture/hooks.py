"""The hook objects that sit on modules and on their outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from inspector.capture.attach import Inert
from inspector.capture.modules import ModuleRecord

if TYPE_CHECKING:
    from inspector.capture.forward import ForwardProbe


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
    """The forward hook of one module; inert once ``probe`` is None."""

    __slots__ = ("bounds", "careful", "column", "gradient", "is_root", "phase", "probe", "record")

    def __init__(self, probe: ForwardProbe, record: ModuleRecord, *, is_root: bool) -> None:
        self.probe: ForwardProbe | None = probe
        self.record = record
        self.is_root = is_root
        self.bounds: tuple[float, float] | None = None
        self.careful = True
        self.column = -1
        self.phase = -1
        self.gradient = OutputGradient(probe, -1)

    def __call__(self, _module: torch.nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_dynamo_compiling():
            return
        probe = self.probe
        if probe is not None and torch.is_grad_enabled():
            probe.on_forward(self, args, output)

    def silence(self) -> None:
        """Nothing happens from now on, wherever copies of the hook or its tensor hooks are."""
        self.probe = None
        self.gradient.probe = None
