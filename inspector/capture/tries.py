"""Gradients that come to nothing: a GradScaler refuses the step, or zero_grad() comes instead."""

from __future__ import annotations

from inspector.capture.clock import Clock
from inspector.capture.forward import ForwardProbe
from inspector.capture.scaling import Scaling
from inspector.capture.skips import SCALER, Skipped
from inspector.capture.step_numbers import StepNumbers
from inspector.capture.stepping import OptimizerProbe
from inspector.capture.watched import Watched

_CLEARED = "the gradients were non-finite, and zero_grad came instead"


class Tries:
    """Tells skipped steps from gradients that a script throws away on purpose."""

    def __init__(
        self,
        watched: Watched,
        forward: ForwardProbe,
        scaling: Scaling,
        numbers: StepNumbers,
        clock: Clock,
    ) -> None:
        self._watched = watched
        self._forward = forward
        self._scaling = scaling
        self._numbers = numbers
        self._clock = clock

    def cleared(self, probe: OptimizerProbe) -> Skipped | None:
        """``zero_grad()`` comes before the step; None where that is the script's own business."""
        reason = ""
        if not self._scaling.tells:
            reason = SCALER
        elif any(isinstance(c, float) and c > 0 for c in probe.nonfinite_now()):
            reason = _CLEARED
        self._drop_passes()
        return self._skipped(reason, over=False) if reason else None

    def refused(self, probe: OptimizerProbe) -> Skipped:
        """A GradScaler's ``step()`` has not called the optimizer's."""
        probe.unstepped = False
        self._drop_passes()
        return self._skipped(SCALER, over=True)

    def _drop_passes(self) -> None:
        if len(self._watched.each) == 1:
            self._forward.drop_finished_passes()

    def _skipped(self, reason: str, *, over: bool) -> Skipped:
        """What is known of the try; GradScaler has waited for the device already."""
        scale, loss = self._scaling.factor, self._numbers.scalars.get("loss")
        return Skipped(
            self._clock.step,
            reason,
            loss=None if loss is None else float(loss),
            scale=None if scale is None else float(scale),
            over=over,
        )
