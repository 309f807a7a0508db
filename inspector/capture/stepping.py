"""Everything about one optimizer: its gradients before and after clipping, and its updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from inspector.capture.cells import LARGEST, NONFINITE, NORM, RECEIVED, ParameterCells
from inspector.capture.gradients import measure_gradients, measure_received
from inspector.capture.scaling import divisor
from inspector.capture.transfer import Scalar, scalar
from inspector.capture.updates import UpdateProbe
from inspector.commands import Clip


class OptimizerProbe:
    """Measures the parameters of one optimizer around its step.

    Attributes:
        positions: places of its parameters in the :class:`ParameterSet`.
        passes: backward passes since the last ``zero_grad()``.
        measured: gradients were measured at the end of the last backward pass, or later.
        total_norm: global gradient norm found by the clipping control, unscaled, if it ran.
        late: the gradients were first seen before the step, so perhaps already clipped.
        scale: the factor inside ``gradients``; None when the loss was not scaled.
        received_scale: the factor inside ``received``: fused optimizers unscale by themselves.
        found_inf: non-zero when a fused optimizer skips the step.
        sound: False after measuring gradients has failed.
        unstepped: gradients have come since the last step.
        updates: measures what the step changes.
        inside_step: ``optimizer.step()`` is running, perhaps calling a closure.
        optimized: what the optimizer steps; ``parameters`` are those measured here.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], positions: list[int]
    ) -> None:
        self.parameters = tuple(parameters)
        self.positions = positions
        self.passes = 0
        self.measured = False
        self._received = self._late_received = False
        self._cells = ParameterCells(len(parameters))
        self._spare: ParameterCells | None = None
        self.total_norm: Scalar | None = None
        self.late = False
        self.scale: Scalar | None = None
        self.received_scale: Scalar | None = None
        self.found_inf: Scalar | None = None
        self.sound = True
        self.unstepped = False
        self.inside_step = False
        self._passes_before = 0
        self._usual = 1
        self._elsewhere = False  # something else than the optimizer clears the gradients
        self.updates = UpdateProbe(parameters)
        self.follow(optimizer)

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """The optimizer that steps the parameters."""
        self.optimized = [p for group in optimizer.param_groups for p in group["params"]]

    def on_backward_end(self, full: bool, clip: Clip, threshold: float) -> None:
        """Measures the gradients before anybody clips them."""
        self.passes += 1
        self.unstepped = True
        self.late = False
        if full:
            measure_gradients(self.parameters, self._cells)
            self.measured = True
        if self.inside_step:  # a closure: the optimizer takes these gradients from here
            self._clip(clip, threshold)
            self._late_received = full  # the closure may still clip them

    def before_step(
        self, optimizer: Any, has_closure: bool, full: bool, clip: Clip, threshold: float
    ) -> None:
        self.inside_step = True
        self.total_norm = None
        factor = getattr(optimizer, "grad_scale", None)
        self.received_scale = None if factor is None else divisor(factor)
        found = getattr(optimizer, "found_inf", None)
        self.found_inf = None if found is None else scalar(found.detach())
        if full and self.sound and not has_closure and not self.measured:
            measure_gradients(self.parameters, self._cells)
            self.measured = self.late = True
        if not has_closure:
            self._clip(clip, threshold, factor)
            if full and (clip != "off" or not self._received):
                self._measure_received()
        if full:
            self.updates.before_step(self._cells)

    def _measure_received(self) -> None:
        measure_received(self.parameters, self._cells)
        self._received = True

    def receives_nonfinite(self) -> bool | None:
        """Whether a gradient is not finite, right before the step; None if that takes waiting."""
        self._measure_received()
        norms = self._cells.row(RECEIVED)
        if any(isinstance(norm, Tensor) for norm in norms):
            return None
        return not all(math.isfinite(norm) for norm in norms)

    def after_step(self, full: bool) -> None:
        self.inside_step = False
        self.unstepped = False
        if full:
            self._usual = self.passes - self._passes_before
        else:  # passes are not counted between full steps, unless something asks for them
            self.passes = max(self.passes, self._passes_before + self.usual)
        self._passes_before = self.passes
        if full:
            if self._late_received:
                self._measure_received()
            self.updates.after_step(self._cells)
        self._late_received = False

    @property
    def usual(self) -> int:
        """Backward passes that a step adds to those before, as counted in the last full one.

        0 where the gradients are cleared unseen (``model.zero_grad()``): they do not pile up.
        """
        return 0 if self._elsewhere else self._usual

    def forgo(self) -> None:
        """Gradients before clipping are not to be known in this step, unless they are already."""
        if not self.measured:
            self._cells.clear(NORM, LARGEST, NONFINITE)
            self.measured = True

    def pass_over(self) -> None:
        """What has come so far belongs to a step that is not watched."""
        self.passes = self._passes_before = 0

    def count(self, passes: int) -> None:
        """So many backward passes have been since the last ``zero_grad()``."""
        self.passes = self._passes_before = passes

    @property
    def at(self) -> int:
        """Address of the numbers of the step that runs."""
        return self._cells.at[0]

    def resume(self, book: Any) -> None:
        """The extension has done the steps so far, and a part of this one."""
        self.passes, self._passes_before = book.passes, book.passes_before
        self.measured, self._received = bool(book.measured), bool(book.received)
        self.unstepped = bool(book.unstepped)
        self.updates.resume(bool(book.copied))

    def on_zero_grad(self) -> None:
        """The gradients are being cleared, or a backward pass has found none of before."""
        if self.passes:
            self._elsewhere = torch._C._current_graph_task_id() != -1
        self.passes = self._passes_before = 0
        self.measured = False

    def forget_step(self) -> None:
        """Ends the step; gradients that stay (no ``zero_grad``) are measured anew next time."""
        cells, spare = self._cells, self._spare
        if spare is None or spare.lists:  # those of the step before may be on their way
            spare = ParameterCells(len(self.parameters))
        self._cells, self._spare = spare, None if cells.lists else cells
        self.measured = self._received = False
        self.total_norm = None

    @property
    def seen_gradients(self) -> bool:
        """Whether there was any gradient among those measured."""
        return any(isinstance(n, Tensor) or n >= 0 or n != n for n in self._cells.row(NORM))

    def nonfinite_now(self) -> list[Scalar]:
        """Non-finite counts of the gradients measured last."""
        return self._cells.row(NONFINITE) if self.measured else []

    def cells(self) -> ParameterCells:
        """The step's numbers, one entry per parameter of this optimizer."""
        if not self.measured:
            self._cells.clear(NORM, LARGEST, NONFINITE)
        if not self._received:
            self._cells.clear(RECEIVED)
        return self._cells

    def _clip(self, clip: Clip, threshold: float, scale: Tensor | None = None) -> None:
        if clip == "off":
            return
        parameters = [p for p in self.optimized if p.grad is not None]
        if not parameters:
            return
        if clip == "value":
            bound = threshold if scale is None else threshold * float(scale)
            torch.nn.utils.clip_grad_value_(parameters, bound)
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if scale is not None:
            norm = norm / scale
        torch.nn.utils.clip_grads_with_norm_(parameters, threshold, norm)
        self.total_norm = scalar(norm.detach())
