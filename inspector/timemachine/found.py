"""A step with something non-finite in it, and who is told of it."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from inspector.capture.nonfinite import Onset
from inspector.events import Origin
from inspector.timemachine.calls import Call


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
