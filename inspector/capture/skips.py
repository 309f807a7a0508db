"""Tries that end without an optimizer step: which are worth an event, and which are past hope.

A GradScaler that begins too high, or grows now and then, skips steps while loss and weights are
finite and the gradients overflow by its factor alone. That is how it works. It cannot help where
the loss or the weights are non-finite themselves, or where gradients overflow at a factor of 1 or
less: then every further step is skipped too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from inspector.capture.nonfinite import Onset, bad_loss
from inspector.capture.parameters import ParameterSet
from inspector.numerals import short

SCALER = "GradScaler found non-finite gradients"
_LOOKS = 4
_EACH = 16
"""So many are told one by one, which is more than a GradScaler of default settings begins with."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """A try that has ended without a step.

    Attributes:
        step: the step that it was to be.
        loss: what the script recorded in it.
        scale: GradScaler's factor in it; None without a GradScaler.
        over: the next try has not begun.
        counted: a fused optimizer was called and has skipped it by itself: it counts as a step.
    """

    step: int
    reason: str
    loss: float | None = None
    scale: float | None = None
    over: bool = True
    counted: bool = False


class Skips:
    """Counts tries without a step.

    Attributes:
        in_a_row: since the last step that was made.
        total: of the whole run.
        told: of how many in all the last event told.
        loss: the last one of the row that was recorded.
        lost: the present row cannot end well by itself.
        failed: looking into skipped steps has raised once.
    """

    def __init__(self) -> None:
        self.in_a_row = self.total = self.told = 0
        self.loss: float | None = None
        self.lost = self.failed = False
        self._record = _EACH
        self._step = -1

    def add(self, skipped: Skipped) -> bool:
        """Counts one; whether to tell: the first ones each, then when their number has doubled."""
        self.in_a_row += 1
        self.total += 1
        self._step = skipped.step
        if skipped.loss is not None:
            self.loss = skipped.loss
        doubled = self.in_a_row >= 2 * self._record
        if doubled:
            self._record = self.in_a_row
        return doubled or self.total <= _EACH or self.total >= 2 * self.told

    def made(self, step: int) -> bool:
        """A step was made, so that the row is over; True where it had been past hope."""
        if step < self._step or not self.in_a_row:  # known late, of before the row
            return False
        lost, self.lost, self.in_a_row, self.loss = self.lost, False, 0, None
        return lost

    def examine(self, skipped: Skipped, parameters: ParameterSet) -> Onset | None:
        """What is wrong beyond the factor; None if the GradScaler may still find a good one.

        Weights are looked at in the first tries of a row, and then in every sixteenth.
        """
        if (onset := bad_loss(skipped.loss)) is not None:
            self.lost = True
            return onset
        hopeless = skipped.scale is not None and skipped.scale <= 1
        if self.in_a_row > _LOOKS and self.in_a_row % _EACH and not hopeless:
            return None
        onset = _first("parameter", parameters, parameters.tensors)
        if onset is None and hopeless:
            onset = _first("gradient", parameters, [p.grad for p in parameters.tensors])
        self.lost = self.lost or onset is not None
        return onset


def _first(where: str, parameters: ParameterSet, tensors: Iterable[Tensor | None]) -> Onset | None:
    """The first of the tensors, one for each parameter, with something non-finite in it."""
    for name, owner, tensor in zip(parameters.names, parameters.owners, tensors, strict=True):
        if tensor is None or is_lazy(tensor):
            continue
        values = tensor.detach()
        values = values.coalesce().values() if values.is_sparse else values
        if bad := int((~torch.isfinite(values)).sum()):
            return Onset(where, owner, "", name, bad)
    return None


def worth(loss: float | None) -> str:
    """A recorded loss in words; empty where none was."""
    return "" if loss is None else short(loss) if math.isfinite(loss) else str(loss)
