"""What is done when another optimizer steps the watched parameters: it is followed, or told of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch.optim import Optimizer

from inspector.capture.other_optimizers import OtherOptimizers
from inspector.capture.settings import current
from inspector.events import Notice
from inspector.numerals import short

if TYPE_CHECKING:
    from inspector.recorder import Recorder

_EACH = 4  # successors are told of one by one, then when their number has doubled
_LISTED = 3
_BOTH = "pass watch() both, watch(model, [first, second])"


class Successors:
    """Acts on other optimizers' steps on behalf of a recorder."""

    def __init__(
        self,
        recorder: Recorder,
        model: torch.nn.Module,
        optimizers: Sequence[Optimizer],
        *,
        alone: bool,
    ) -> None:
        self._recorder = recorder
        self._types = [type(optimizer).__name__ for optimizer in optimizers]
        self._followed = 0
        observer = recorder.observer
        self._others = OtherOptimizers(
            model, optimizers, self, stepped=observer.stepped, held=observer.held, alone=alone
        )

    def close(self) -> None:
        """Nobody is followed any more; twice is fine."""
        self._others.close()

    # ------------------------------------------------------------ called before their steps

    def on_unseen_step(self) -> None:
        self._recorder.observer.pass_over()
        self._recorder.timemachine.pass_over(over=True)

    def on_successor(self, position: int, optimizer: Optimizer, unseen: int) -> None:
        recorder = self._recorder
        recorder.timemachine.follow_optimizer(position, optimizer)
        recorder.observer.follow_optimizer(position, optimizer)
        recorder.steering.follow_optimizer(position, optimizer)
        recorder.structure.follow_optimizer(position, optimizer)
        recorder.describe_optimizers()
        self._followed += 1
        if self._followed <= _EACH or self._followed.bit_count() == 1:
            recorder.event(Notice(message=self._told(position, optimizer, unseen)))
        self._types[position] = type(optimizer).__name__

    def _told(self, position: int, optimizer: Optimizer, unseen: int) -> str:
        before = self._types[position]
        text = f"A new optimizer, {_called(optimizer)}, is watched from step {self._recorder.step} "
        text += f"on, in the place of {before}"
        if unseen:
            steps = f"the first {unseen} of its steps are" if unseen > 1 else "its first step is"
            text += f", which no longer steps; {steps} not in the run"
        if self._followed >= _EACH:
            text += f" ({self._followed} so far)"
        return f"{text}."

    def on_return(self, optimizer: Optimizer) -> None:
        text = f"{_called(optimizer)}, which was watched before, steps again, but is no longer "
        self._tell(f"{text}watched: where several optimizers take turns, {_BOTH}.")

    def on_stranger(self, optimizer: Optimizer, names: Sequence[str]) -> None:
        listed = ", ".join(names[:_LISTED])
        if len(names) > _LISTED:
            listed += f" and {len(names) - _LISTED} more"
        text = f"{_called(optimizer)} steps parameters that no watched optimizer has ({listed}): "
        self._tell(f"{text}its steps are not seen; {_BOTH}.")

    def _tell(self, message: str) -> None:
        self._recorder.event(Notice(message=message))

    def on_failed(self, probe: str, error: Exception) -> None:
        self._recorder.on_failed(probe, error)


def _called(optimizer: Optimizer) -> str:
    rate = current(optimizer, "lr")
    return type(optimizer).__name__ + ("" if rate is None else f" (learning rate {short(rate)})")
