"""The first full step: which modules run, what they return, and which containers add to it.

Modules that are called for the first time in a later full step are noted then.
"""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from inspector.capture.activations import main_tensor
from inspector.capture.modules import ModuleRecord


class Discovery:
    """Fills the modules' records in the order of their first calls.

    Attributes:
        first: calls of modules in earlier discoveries.
        calls: calls of modules in this one.
    """

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.calls = 0
        self._outputs: list[tuple[weakref.ref[Tensor], int]] = []

    def note(self, record: ModuleRecord, args: Any, output: Any) -> Tensor | None:
        """One call; gives the tensor whose statistics are the module's, if it returns any."""
        if record.call_index < 0:
            record.fill(self.first + self.calls, args, output)
        self.calls += 1
        tensor = main_tensor(output)
        if tensor is None:
            record.badge = record.badge or "its output holds no tensor"
        return tensor

    def remember(self, tensor: Tensor) -> None:
        """A module has returned this tensor."""
        if not tensor.is_inference():
            self._outputs.append((weakref.ref(tensor), tensor._version))

    def is_inner(self, tensor: Tensor) -> bool:
        """Whether a module inside has returned this very tensor, unchanged since."""
        if tensor.is_inference():
            return False
        version = tensor._version
        return any(seen() is tensor and then == version for seen, then in self._outputs)
