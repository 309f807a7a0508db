"""The backward pass under anomaly detection: its error becomes an event and a skipped step."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from torch import Tensor, optim

from inspector.events import StepSkipped
from inspector.training.failures import born_in_backward

if TYPE_CHECKING:
    from inspector.watching import Watch


def backward(loss: Tensor, optimizer: optim.Optimizer, watch: Watch) -> None:
    """``loss.backward()``.

    When anomaly detection finds the function in which NaN was born, the gradients are dropped:
    the following ``optimizer.step()`` then changes nothing, and the run goes on or pauses there.
    """
    if not watch.controls.detect_anomaly:
        loss.backward()
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        error = _attempt(loss)
    texts = [str(warning.message) for warning in caught]
    for warning in caught:
        if "Traceback of forward call" not in str(warning.message):
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    if error is None:
        return
    pause = watch.controls.on_nonfinite == "pause"
    event = born_in_backward(error, texts, "paused" if pause else "skipped")
    if event is None:
        raise error
    watch.event(event)
    watch.event(StepSkipped(reason=f"a non-finite gradient was born in {event.op}"))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
    if pause:
        watch.pause("nonfinite")


def _attempt(loss: Tensor) -> RuntimeError | None:
    try:
        loss.backward()
    except RuntimeError as error:
        return error
    return None
