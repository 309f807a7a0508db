"""Whether gradients are cleared between two steps."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from inspector.capture.answers import Answers
from inspector.capture.reductions import measurable

_COMPARED = 4  # gradients
_LOOKED_AT = 16  # where it is known later which of them tell something
_PASSES = 16  # of a step
_KEPT_STEPS = 200


class ZeroGradFacts:
    """Compares a few gradients at the start of a backward pass with those of the step before."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._begun = False
        self._used: list[tuple[weakref.ref[Tensor], Tensor, Tensor | bool]] = []
        self._unzeroed: list[bool] = []  # the passes of this step, until one is found zeroed
        self._kept_steps: list[int] = []
        self._checked_steps = 0

    def watch_backward(self, output: Tensor) -> None:
        """At the start of this pass's backward, looks whether old gradients are still there."""
        if not self._begun:
            return
        facts = weakref.ref(self)

        def begin(_gradient: Tensor) -> None:
            owner = facts()
            if owner is not None:
                owner._backward_begins()

        output.register_hook(begin)  # type: ignore[no-untyped-call]

    def _backward_begins(self) -> None:
        remain: list[Tensor | bool] = []
        for reference, sample, usable in self._used:
            tensor = reference()
            if tensor is not None and tensor.grad is not None:
                same = _sample(tensor.grad) == sample
                remain.append(bool(same.all()) if same.is_cpu else same.all() & usable)
        self._answers.ask(self._note_pass, *remain)

    def _note_pass(self, *remain: Any) -> None:
        """Whether gradients are still exactly those that the last step used."""
        if len(self._unzeroed) < _PASSES and all(self._unzeroed):
            self._unzeroed.append(any(remain))

    def stepped(self, step: int, *, follows: bool) -> None:
        """A step is over; ``follows``: what the one before it has used is known."""
        self._begun = True
        self._answers.ask(partial(self._close_step, step, follows))

    def _close_step(self, step: int, follows: bool) -> None:
        if follows and self._unzeroed:
            self._checked_steps += 1
            if all(self._unzeroed) and len(self._kept_steps) < _KEPT_STEPS:
                self._kept_steps.append(step)
        self._unzeroed = []

    def keep(self, parameters: Iterable[Tensor]) -> None:
        """Remembers a few values of some gradients that the step has just used.

        Those of the first four that are finite and not zero throughout; on a device that is known
        later, so that more are looked at, of which the first four that are so count.
        """
        self._used = []
        rank: Tensor | int = 0
        for tensor in parameters:
            if tensor.grad is None or tensor.grad.is_sparse or not measurable(tensor.grad):
                continue
            sample = _sample(tensor.grad)
            good = (sample != 0).any() & torch.isfinite(sample).all()
            if not sample.is_cpu:
                rank = rank + good.long()
                self._used.append((weakref.ref(tensor), sample, good & (rank <= _COMPARED)))
            elif good:
                self._used.append((weakref.ref(tensor), sample, True))
            if len(self._used) == (_COMPARED if sample.is_cpu else _LOOKED_AT):
                return

    def document(self) -> dict[str, Any]:
        """``checked_steps``, how many; ``kept_steps``, those that did not clear gradients."""
        return {"checked_steps": self._checked_steps, "kept_steps": self._kept_steps}


def _sample(gradient: Tensor) -> Tensor:
    flat = gradient.detach().reshape(-1)
    return flat[:: max(flat.numel() // 16, 1)][:16].clone()
