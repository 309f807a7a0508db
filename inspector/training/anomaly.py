"""The backward pass under anomaly detection: its error becomes an event and a skipped step."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from torch import Tensor, optim

from inspector.events import NonFinite, StepSkipped
from inspector.training.failures import born_in_backward

if TYPE_CHECKING:
    from inspector.watching import Watch


class Backward:
    """Calls ``loss.backward()``.

    When anomaly detection finds the function in which NaN was born, the gradients are dropped:
    the following ``optimizer.step()`` then changes nothing, and the run goes on or pauses there.
    A run that goes on is told of each place once.
    """

    def __init__(self, optimizer: optim.Optimizer, watch: Watch) -> None:
        self._optimizer, self._watch = optimizer, watch
        self._told: set[NonFinite] = set()

    def __call__(self, loss: Tensor) -> bool:
        """Whether there are gradients to step with."""
        if not self._watch.controls.detect_anomaly:
            loss.backward()  # type: ignore[no-untyped-call]
            return True
        error, warned = _attempt(loss)
        if error is None:
            return True
        pause = self._watch.controls.on_nonfinite == "pause"
        born = born_in_backward(error, warned, "paused" if pause else "skipped")
        if born is None:
            raise error
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        if pause or born not in self._told:
            self._told.add(born)
            self._watch.event(born)
            self._watch.event(StepSkipped(reason=f"a non-finite gradient was born in {born.op}"))
        if pause:
            self._watch.pause("nonfinite")
        return False


def _attempt(loss: Tensor) -> tuple[RuntimeError | None, list[str]]:
    """The error of the backward pass, if any, and the texts of its warnings.

    PyTorch tells of the forward call by a warning, and in no other way.
    """
    error = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as raised:
            error = raised
    return error, [str(warning.message) for warning in caught]
