"""One optimizer step: forward and backward pass of each batch, then the step."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, optim

from inspector.training.anomaly import Backward
from inspector.training.own.batches import size_of, to_device
from inspector.training.step import Scores
from inspector.training.task import Task

if TYPE_CHECKING:
    from inspector.watching import Watch

Timed = tuple[Any, float]


class Update:
    """Makes one step of batches whose gradients are summed.

    The loss of each is divided by their number, so that equal batches do what one large batch
    would; what is recorded is the mean over them.
    """

    def __init__(self, task: Task, watch: Watch) -> None:
        self._task, self._watch = task, watch
        self._backward = Backward(task.optimizer, watch)
        self._recorded = False

    def __call__(self, batches: Sequence[Timed], epoch: float) -> None:
        """Steps with these batches, each with the seconds that were waited for it.

        Args:
            epoch: passes over the training part completed after this step.
        """
        optimizer, watch = self._task.optimizer, self._watch
        samples = sum(size_of(batch) for batch, _ in batches)
        waited = sum(seconds for _, seconds in batches)
        watch.record(epoch=epoch, samples=samples, data_seconds=waited, **rates(optimizer))
        self._recorded = False
        if isinstance(optimizer, optim.LBFGS):  # evaluates the loss several times in a step
            optimizer.step(partial(self._gradients, batches))  # type: ignore[no-untyped-call]
        else:
            self._gradients(batches)
            self._task.precision.step(optimizer)

    def _gradients(self, batches: Sequence[Timed]) -> Tensor:
        """Forward and backward passes; the mean loss."""
        task, count = self._task, len(batches)
        seen: list[Scores] = []
        task.optimizer.zero_grad()
        for batch, _ in batches:
            batch = to_device(batch, task.device)
            with task.precision.autocast():
                loss, measured = task.step(task.model, batch)
            if not self._recorded:
                self._watch.record(loss=loss, **measured)
            seen.append({"loss": loss.detach(), **measured})
            if not self._backward(task.precision.scaled(loss / count if count > 1 else loss)):
                break
        if count > 1:
            means = {name: torch.stack([one[name] for one in seen]).mean() for name in seen[0]}
            if not self._recorded:
                self._watch.amend(**means)
            loss = means["loss"]
        self._recorded = True
        return loss


def rates(optimizer: optim.Optimizer) -> dict[str, Any]:
    """The learning rates of all groups but the first, which is recorded as ``lr``."""
    groups = optimizer.param_groups
    return {f"lr/group {number}": groups[number]["lr"] for number in range(1, len(groups))}
