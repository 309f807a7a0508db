"""Units of activation functions that never fire or sit at their bounds; gradients through time."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from inspector.capture import kernel
from inspector.capture.answers import Answers
from inspector.capture.reductions import count_nonfinite

_PASSES = 16  # backward passes whose gradients through time are kept
_BOUNDS = {"tanh": (-0.97, 0.97), "sigmoid": (0.015, 0.985)}
"""Beyond these an activation counts as saturated."""


class UnitCall(NamedTuple):
    """One call of an activation function."""

    module: str | None
    function: str
    width: int
    elements: int
    step: int


class Units:
    """One activation function's units over a few passes."""

    def __init__(self, first: UnitCall) -> None:
        self.module, self.function, self.width = first.module, first.function, first.width
        self.first = self.last = first.step
        self.passes = 0
        self._active: Tensor | None = None
        self._saturated = 0.0
        self._zeros = 0.0
        self._samples = 0

    def add(self, call: UnitCall, zeros: float, saturated: float, active: Tensor | None) -> None:
        """One pass: the shares, and which units have fired of functions that can rest."""
        self.passes += 1
        self.last = call.step
        self._samples += call.elements // self.width
        if active is not None:
            self._active = active if self._active is None else self._active | active
            self._zeros += zeros
        else:
            self._saturated += saturated

    def row(self) -> dict[str, Any]:
        dead = None if self._active is None else 1 - float(self._active.float().mean())
        return {
            "module": self.module,
            "function": self.function,
            "units": self.width,
            "samples": self._samples,
            "first_step": self.first,
            "last_step": self.last,
            "dead": dead,
            "zeros": self._zeros / self.passes,
            "saturated": self._saturated / self.passes,
        }


class ThroughTime:
    """Gradients that reach the last and the first call of a module that is called many times."""

    def __init__(self, calls: int, answers: Answers) -> None:
        self.calls = calls
        self._answers = answers
        self._latest: list[float] = []
        self._earliest: list[float] = []
        self._pending: Tensor | None = None
        self._largest, self._largest_step = 0.0, 0

    def watch(self, *, latest: Any, earliest: Any, step: int) -> None:
        """Listens to this pass's backward at two operations of the graph, the latest first."""
        latest.register_hook(self._at_latest)
        earliest.register_hook(partial(self._at_earliest, step))

    def _at_latest(self, _inputs: Any, outputs: tuple[Tensor | None, ...]) -> None:
        self._pending = _norm(outputs)

    def _at_earliest(self, step: int, _inputs: Any, outputs: tuple[Tensor | None, ...]) -> None:
        latest, earliest = self._pending, _norm(outputs)
        self._pending = None
        if latest is not None and earliest is not None:
            self._answers.ask(partial(self._note, step), latest, earliest)

    def _note(self, step: int, later: Any, sooner: Any) -> None:
        latest, earliest = float(later), float(sooner)
        if not (math.isfinite(latest) and math.isfinite(earliest)):
            return
        if len(self._latest) < _PASSES:
            self._latest.append(latest)
            self._earliest.append(earliest)
        if latest > 0 and earliest / latest > self._largest:
            self._largest, self._largest_step = earliest / latest, step

    def row(self) -> dict[str, Any]:
        return {
            "calls": self.calls,
            "latest": self._latest,
            "earliest": self._earliest,
            "largest_ratio": self._largest,
            "largest_ratio_step": self._largest_step,
        }


def _norm(gradients: tuple[Tensor | None, ...]) -> Tensor | None:
    if not gradients or gradients[0] is None:
        return None
    norm: Tensor = torch.linalg.vector_norm(gradients[0].detach().float())
    return norm


def units_of(result: Tensor) -> int:
    """How many there are: channels are units of images, features are units of all else."""
    return result.shape[1] if result.dim() == 4 else result.shape[-1]


def active_units(result: Tensor) -> Tensor:
    """Which units have fired for any sample: one flag for each."""
    return result.amax((0, 2, 3) if result.dim() == 4 else [*range(result.dim() - 1)]) > 0


def shares(result: Tensor, function: str) -> tuple[Tensor | float, ...]:
    """Non-finite values, zeros and saturated values: how many of one."""
    bounds = _BOUNDS.get(function)
    compiled = kernel.load()
    if compiled is not None and kernel.fits(result):
        _, count, _, _, zeros, outside, nonfinite, _ = compiled.output(0, result, bounds)
        return nonfinite, zeros / count, outside / count
    saturated: Tensor | float = 0.0
    if bounds is not None:
        saturated = ((result < bounds[0]) | (result > bounds[1])).float().mean()
    return count_nonfinite(result), (result == 0).float().mean(), saturated
