"""GradScalers: the factor of the loss, and hearing of the steps that they skip."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from inspector.capture.attach import Attachment
from inspector.capture.transfer import Scalar, scalar

_LEAST = torch.finfo(torch.float32).smallest_normal
_STEP = torch.amp.GradScaler.step.__code__
_SOON = 3  # steps in which a GradScaler is looked for


class Scaling:
    """The GradScaler of a loop, if it has one.

    Attributes:
        scaler: of PyTorch, or of somebody else; None where nobody scales, as far as is known.

    Args:
        around_step: takes the place of its ``step``, which is its first argument.
    """

    def __init__(self, attachment: Attachment, around_step: Callable[..., Any]) -> None:
        self.scaler: Any = None
        self._attachment = attachment
        self._around_step = around_step

    def follow(self, scaler: Any) -> None:
        """Notices at once when this GradScaler skips a step."""
        self.scaler = scaler
        if isinstance(scaler, torch.amp.GradScaler):
            step = _Step(scaler, self._around_step)
            self._attachment.replace_method(scaler, "step", step)

    def look(self, step: int) -> None:
        """Right before an optimizer's step, which a GradScaler may have called."""
        if self.scaler is None and step < _SOON:
            self.follow(_calling())

    @property
    def tells(self) -> bool:
        """Whether every skipped step is noticed when it is skipped; so too where nobody scales."""
        return self.scaler is None or isinstance(self.scaler, torch.amp.GradScaler)

    def is_simple(self, optimizers: Sequence[torch.optim.Optimizer]) -> bool:
        """Whether each call of an optimizer's step is a step: fused ones skip some themselves."""
        fused = "_step_supports_amp_scaling"
        by_itself = self.scaler is not None and any(getattr(o, fused, False) for o in optimizers)
        return self.tells and not by_itself

    @property
    def factor(self) -> Scalar | None:
        """The present one, without waiting for the device; None where nothing is scaled."""
        if self.scaler is None or not self.scaler.is_enabled():
            return None
        factor = getattr(self.scaler, "_scale", None)
        return None if factor is None else divisor(factor)


class _Step:
    """Takes the place of a GradScaler's ``step``; copies of the scaler have their own one."""

    def __init__(self, scaler: torch.amp.GradScaler, step: Callable[..., Any]) -> None:
        self.inherited = scaler.step
        self._scaler, self._step = weakref.ref(scaler), step

    def __call__(self, optimizer: torch.optim.Optimizer, *args: Any, **kwargs: Any) -> Any:
        return self._step(self.inherited, optimizer, *args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self._scaler(), "step")


def _calling() -> Any:
    """The GradScaler whose ``step`` is calling the optimizer right now, if there is one."""
    frame = sys._getframe(1)
    for _ in range(10):
        if frame.f_back is None:
            return None
        frame = frame.f_back
        if frame.f_code is _STEP:
            return frame.f_locals.get("self")
    return None


def divisor(factor: Tensor) -> Scalar:
    """The factor; one that was halved until nothing was left of it is nearly 0."""
    return scalar(factor.detach().clamp_min(_LEAST))
